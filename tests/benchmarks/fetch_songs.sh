#!/usr/bin/env bash
# Make the directory of songs that the benchmarks run on: 27 songs, 94 minutes, 9 each of mp3, flac and ogg.
#
#   tests/benchmarks/fetch_songs.sh DIR          # downloads three Debian packages (100 MB) with apt-get
#   tests/benchmarks/fetch_songs.sh DIR TREE     # TREE already holds them unpacked (dpkg -x)
#
# Needs ffmpeg; without TREE also a Debian or Ubuntu whose apt knows the packages. The music is free: pushover-data and
# wizznic-data are GPL-3, singularity-music is Creative Commons; see usr/share/doc/*/copyright in each. All of it is
# Vorbis there. Every third song is copied as it is, every third becomes an MP3 of 192 kbit/s, every third a 16-bit
# FLAC, so that each format gets its share of each package.
set -euo pipefail
shopt -s nullglob
export LC_ALL=C  # one order of the file names everywhere

[[ $# == 1 || $# == 2 ]] || { echo "usage: $0 DIR [TREE]" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
if [[ $# == 2 ]]; then
    tree=$(cd "$2" && pwd)
else
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    (cd "$tree" && apt-get download pushover-data singularity-music wizznic-data)
    for package in "$tree"/*.deb; do dpkg -x "$package" "$tree"; done
fi

share=$tree/usr/share
singularity=("$share"/games/singularity/music/*.ogg)
songs=("$share"/pushover/themes/*.ogg "${singularity[@]:0:8}" "$share"/games/wizznic/packs/000_wizznic/music/*.ogg
    "$share"/games/wizznic/data/menu-music.ogg)
[[ ${#songs[@]} == 27 ]] || { echo "expected 27 songs below $share, found ${#songs[@]}" >&2; exit 1; }

encode() { ffmpeg -nostdin -v error -y -i "$1" -map 0:a:0 -map_metadata -1 -bitexact "${@:2}"; }

for i in "${!songs[@]}"; do
    name=$(basename "${songs[i]}" .ogg)
    name=$(printf '%02d-%s' $((i + 1)) "${name// /_}")
    case $((i % 3)) in
        0) mkdir -p "$target/mp3" && encode "${songs[i]}" -c:a libmp3lame -b:a 192k "$target/mp3/$name.mp3" ;;
        1) mkdir -p "$target/flac" && encode "${songs[i]}" -c:a flac -sample_fmt s16 "$target/flac/$name.flac" ;;
        2) mkdir -p "$target/ogg" && cp "${songs[i]}" "$target/ogg/$name.ogg" ;;
    esac
done
echo "${#songs[@]} songs in $1"
