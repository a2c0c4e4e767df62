"""Re-encodings of real tracks: what becomes of a recording on its way through people's hands."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.filter
import soundfile

from tests.benchmarks.common import cores, say

COMMON_RATES = (32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Kind:
    """A way to make a copy.

    Args:
        name: for tables.
        suffix: of the file; ``flac`` keeps what the filter leaves, in 16 bits.
        bitrate: kb/s, of MP3 and Opus.
        filter: of FFmpeg, with its arguments.
    """

    name: str
    suffix: str
    bitrate: int | None = None
    filter: tuple[str, str] | None = None


KINDS = (
    *(Kind(f"MP3, {bitrate} kb/s", "mp3", bitrate) for bitrate in (64, 128, 192, 320)),
    Kind("Ogg Vorbis", "ogg"),
    *(Kind(f"Opus, {bitrate} kb/s", "opus", bitrate) for bitrate in (64, 96)),
    Kind("resampled to 22.05 kHz", "flac", filter=("aresample", "22050")),
    Kind("resampled to 48 kHz", "flac", filter=("aresample", "48000")),
    Kind("mono", "flac", filter=("aformat", "channel_layouts=mono")),
    Kind("6 dB louder, clipped", "flac", filter=("volume", "6dB")),
    Kind("6 dB softer", "flac", filter=("volume", "-6dB")),
    Kind("first second cut", "flac", filter=("atrim", "start=1")),
)


def make_copies(wanted: list[tuple[Path, Kind]], folder: Path) -> dict[Path, tuple[Path, Kind]]:
    """Make the copies that are missing, on all cores; a second run goes on where the first was stopped.

    Returns:
        Copy -> the track that it is of, and how it was made; without those that could not be made, which are named.
    """
    copies = {place_of(track, kind, folder): (track, kind) for track, kind in wanted}
    missing = [(track, copy, kind) for copy, (track, kind) in copies.items() if not copy.exists()]
    say(f"{len(copies)} copies, {len(missing)} of them still to be made")
    with ProcessPoolExecutor(cores()) as pool:
        for number, problem in enumerate(pool.map(_try_encode, missing), start=1):
            if problem:
                say(problem)
            if number % 50 == 0:
                say(f"{number}/{len(missing)} copies made")
    return {copy: of for copy, of in copies.items() if copy.exists()}


def place_of(track: Path, kind: Kind, folder: Path) -> Path:
    """A folder for each track, for the names of tracks repeat."""
    name = hashlib.blake2b(bytes(track), digest_size=8).hexdigest()
    return folder / name / f"{kind.name.replace(' ', '-').replace('/', '').replace(',', '')}.{kind.suffix}"


def _try_encode(job: tuple[Path, Path, Kind]) -> str | None:
    try:
        encode(*job)
    except (av.FFmpegError, soundfile.LibsndfileError, ValueError) as error:
        return f"{job[0]}: {job[2].name}: {error}"
    return None


def encode(track: Path, copy: Path, kind: Kind) -> None:
    """Write a copy of a track; whole or not at all."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".partial.{copy.name}")
    with av.open(str(track)) as reader:
        source = reader.streams.audio[0]
        rate = source.rate
        if kind.filter and kind.filter[0] == "aresample":
            rate = int(kind.filter[1])
        elif kind.suffix == "opus":
            rate = 48_000
        elif kind.suffix != "flac" and rate not in COMMON_RATES:
            rate = 44_100
        layout = "mono" if kind.name == "mono" or source.channels == 1 else "stereo"
        write = _with_libsndfile if kind.suffix == "ogg" else _with_ffmpeg
        write(_frames(reader, kind, rate, layout), partial, kind, rate, layout)
    partial.replace(copy)


def _with_ffmpeg(frames: Iterator[av.AudioFrame], path: Path, kind: Kind, rate: int, layout: str) -> None:
    codec, container = {"mp3": ("libmp3lame", "mp3"), "opus": ("libopus", "ogg"), "flac": ("flac", "flac")}[kind.suffix]
    with av.open(str(path), "w", format=container) as writer:
        # LAME at 7 of 9 takes half the time that it takes by default.
        options = {"compression_level": "7"} if kind.suffix == "mp3" else {}
        stream = writer.add_stream(codec, rate=rate, layout=layout, options=options)
        assert isinstance(stream, av.AudioStream)
        if kind.bitrate is not None:
            stream.bit_rate = 1000 * kind.bitrate
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
        for frame in frames:
            for ready in resampler.resample(frame):
                writer.mux(stream.encode(ready))
        writer.mux(stream.encode(None))


def _with_libsndfile(frames: Iterator[av.AudioFrame], path: Path, kind: Kind, rate: int, layout: str) -> None:
    """Vorbis, which PyAV's wheel does not write; in blocks, for libsndfile dies of a long one in one call."""
    channels = 1 if layout == "mono" else 2
    with soundfile.SoundFile(path, "w", rate, channels, "VORBIS", format="OGG") as file:
        for frame in frames:
            file.write(frame.to_ndarray().reshape(-1, channels))


def _frames(reader: av.container.InputContainer, kind: Kind, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    """The filtered track, as interleaved float32 from time 0."""
    source = reader.streams.audio[0]
    graph = av.filter.Graph()
    steps = [graph.add_abuffer(template=source)]
    steps += [graph.add(*kind.filter)] if kind.filter else []
    steps += [graph.add("aformat", f"sample_rates={rate}:channel_layouts={layout}:sample_fmts=flt")]
    steps += [graph.add("asetpts", "PTS-STARTPTS"), graph.add("abuffersink")]
    graph.link_nodes(*steps).configure()
    for frame in itertools.chain(reader.decode(source), [None]):
        graph.push(frame)
        while (ready := _pull(graph)) is not None:
            yield ready


def _pull(graph: av.filter.Graph) -> av.AudioFrame | None:
    try:
        frame = graph.pull()
    except (BlockingIOError, EOFError):
        return None
    assert isinstance(frame, av.AudioFrame)
    return frame
