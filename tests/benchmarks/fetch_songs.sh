#!/usr/bin/env bash
# Make the directory of songs that the benchmarks run on: about 80 songs, 8 hours, a third of them mp3, a third flac.
#
#   tests/benchmarks/fetch_songs.sh DIR          # downloads five Debian packages (250 MB) with apt-get
#   tests/benchmarks/fetch_songs.sh DIR TREE     # TREE already holds them unpacked (dpkg -x)
#
# Needs ffmpeg; without TREE also a Debian or Ubuntu whose apt knows the packages. All of the music is free; see
# usr/share/doc/*/copyright in each package. It is Vorbis or Opus there. Every third song is copied as it is, every
# third becomes an MP3 of 192 kbit/s, every third a 16-bit FLAC, so that each format gets its share of each package.
set -euo pipefail
export LC_ALL=C  # one order of the file names everywhere

[[ $# == 1 || $# == 2 ]] || { echo "usage: $0 DIR [TREE]" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
if [[ $# == 2 ]]; then
    tree=$(cd "$2" && pwd)
else
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    (cd "$tree" && apt-get download pushover-data singularity-music wizznic-data planetblupi-music-ogg warzone2100-music)
    for package in "$tree"/*.deb; do dpkg -x "$package" "$tree"; done
fi

# Files of less than 300 kB are the games' sound effects.
mapfile -t songs < <(find "$tree/usr/share" \( -name '*.ogg' -o -name '*.opus' \) -size +300k | sort)
((${#songs[@]} > 50)) || { echo "expected more than 50 songs below $tree, found ${#songs[@]}" >&2; exit 1; }

encode() { ffmpeg -nostdin -v error -y -i "$1" -map 0:a:0 -map_metadata -1 -bitexact "${@:2}"; }

for i in "${!songs[@]}"; do
    suffix=${songs[i]##*.}
    name=$(basename "${songs[i]}" ".$suffix")
    name=$(printf '%02d-%s' $((i + 1)) "${name// /_}")
    case $((i % 3)) in
        0) mkdir -p "$target/mp3" && encode "${songs[i]}" -c:a libmp3lame -b:a 192k "$target/mp3/$name.mp3" ;;
        1) mkdir -p "$target/flac" && encode "${songs[i]}" -c:a flac -sample_fmt s16 "$target/flac/$name.flac" ;;
        2) mkdir -p "$target/$suffix" && cp "${songs[i]}" "$target/$suffix/$name.$suffix" ;;
    esac
done
echo "${#songs[@]} songs in $1"
