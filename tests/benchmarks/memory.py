"""Memory of ``poolembed embed``: on a file of ten hours beside one of ten seconds, and over 20,000 short files.

python -m tests.benchmarks.memory [--hours 10] [--files 20000] [--folder DIR]

The long file is FLAC, 44.1 kHz, stereo, a real clip over and over with a little noise: about 3 GB in DIR, or where
temporary files go, while the benchmark runs. The short files are hard links to the first seconds of real clips in three
formats, each with a path of its own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile

from tests.benchmarks.common import CLIPS, POOLEMBED, Table, machine, report, say

MB = 1e6
EVERY = 1000


@dataclass(frozen=True)
class Peak:
    """What one ``poolembed embed`` took: most memory resident at once, in MB, and wall time, in seconds."""

    megabytes: float
    seconds: float


def write_song(path: Path, seconds: float) -> None:
    """Loop a clip into a stereo FLAC, a minute at a time, the channels and every minute a little different."""
    clip, rate = soundfile.read(CLIPS / "ambient" / "moon.ogg", dtype="float32", always_2d=True)
    minute = np.resize(clip[:, 0], 60 * rate)
    random = np.random.default_rng(0)
    left = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16", format="FLAC") as file:
        while left > 0:
            # Small numbers keep the file small; 30 of 32,768 steps of noise defeat any shortcut for repetition.
            block = np.stack([minute, np.roll(minute, random.integers(rate))], axis=1) / 8
            block += random.normal(scale=30 / 32768, size=block.shape).astype(np.float32)
            file.write(block[:left])
            left -= len(block)


def write_short_files(folder: Path, files: int) -> None:
    """So many one-second files of mp3, flac and ogg, a thousand a folder."""
    sources: list[Path] = []
    for clip, suffix in itertools.product(sorted(CLIPS.rglob("*.*")), ("mp3", "flac", "ogg")):
        if clip.suffix in (".mp3", ".flac", ".ogg", ".wav", ".opus"):
            samples, rate = soundfile.read(clip, always_2d=True)
            if len(samples) >= rate:
                sources.append(folder / f"source-{len(sources)}.{suffix}")
                soundfile.write(sources[-1], samples[:rate], rate)
    for number in range(files):
        source = sources[number % len(sources)]
        target = folder / "songs" / f"{number // EVERY:02}" / f"{number:05}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def command(songs: Path, output: Path) -> list[str]:
    return [POOLEMBED, "embed", str(songs), "-o", str(output), "--quiet"]


def embed_alone(songs: Path, output: Path) -> Peak:
    """Embed and take the peak from the operating system, which misses nothing."""
    began = time.perf_counter()
    process = subprocess.Popen(command(songs, output))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"poolembed embed failed with exit code {process.returncode}")
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return Peak(usage.ru_maxrss * unit / MB, time.perf_counter() - began)


@dataclass(frozen=True)
class Sample:
    """So many files are in the manifest after so many seconds, and so much memory is resident."""

    seconds: float
    files: int
    megabytes: float


def embed_watched(songs: Path, output: Path) -> list[Sample]:
    """Embed and look once a second, from when the first file is done."""
    began = time.perf_counter()
    process = psutil.Popen(command(songs, output))
    manifest = output / "manifest.jsonl"
    samples: list[Sample] = []
    while process.poll() is None:
        time.sleep(1)
        try:
            resident = process.memory_info().rss / MB
            lines = manifest.read_bytes().count(b"\n") - 1
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue
        if lines > 0 and resident > 0:
            samples.append(Sample(time.perf_counter() - began, lines, resident))
    if process.returncode:
        raise SystemExit(f"poolembed embed failed with exit code {process.returncode}")
    return samples


def long_file(folder: Path, hours: float) -> tuple[list[Table | str], dict[str, object]]:
    short, long = folder / "short.flac", folder / "long.flac"
    write_song(short, 10)
    say(f"writing {hours:g} hours of FLAC")
    write_song(long, 3600 * hours)
    size = long.stat().st_size
    say(f"embedding {size / 1e9:.1f} GB")
    few = embed_alone(short, folder / "out-short")
    many = embed_alone(long, folder / "out-long")
    long.unlink()
    table = Table(f"One long file (FLAC, 44.1 kHz, stereo, {size / 1e9:.1f} GB)", ["", "peak MB", "seconds"])
    table.add("10 seconds", f"{few.megabytes:.0f}", f"{few.seconds:.1f}")
    table.add(f"{hours:g} hours", f"{many.megabytes:.0f}", f"{many.seconds:.1f}")
    more = many.megabytes - few.megabytes
    table.add("**difference** (wanted: within 300)", f"**{more:.0f}**", "")
    data = {"hours": hours, "bytes": size, "short": vars(few), "long": vars(many), "difference_mb": more}
    return [table], data


def many_files(folder: Path, files: int) -> tuple[list[Table | str], dict[str, object]]:
    say(f"embedding {files} files of one second")
    write_short_files(folder, files)
    samples = embed_watched(folder / "songs", folder / "out")
    seen = [sample.files for sample in samples]
    marks = list(range(EVERY, files + 1, EVERY)) or [files]
    times = np.interp(marks, seen, [sample.seconds for sample in samples])
    resident = np.interp(marks, seen, [sample.megabytes for sample in samples])
    took = np.diff(times, prepend=0.0)
    table = Table(f"{files} files of one second", ["files done", "seconds for the last 1,000", "resident MB"])
    for mark, seconds, megabytes in zip(marks, took, resident, strict=True):
        table.add(f"{mark:,}", f"{seconds:.1f}", f"{megabytes:.0f}")
    after = [sample.megabytes for sample in samples if sample.files >= EVERY]
    growth = resident[-1] - resident[0]
    half = len(took) // 2
    remarks = f"From the first thousand to the last, memory changes by **{growth:+.0f} MB**"
    remarks += f" (highest of all samples {max(after) - resident[0]:+.0f} MB)."
    if half > 1:
        # The first thousand includes starting up.
        slower = took[half:].mean() / took[1 : half + 1].mean()
        remarks += f" A thousand files take {slower:.2f} times as long in the second half as in the first."
    data = {"files": files, "samples": [vars(sample) for sample in samples], "growth_mb": growth}
    return [table, remarks], data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--folder", help="where to put the files meanwhile", metavar="DIR")
    args = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        long, about_long = long_file(Path(folder), args.hours)
        many, about_many = many_files(Path(folder), args.files)
    report("memory", "Memory", "memory", about, [*long, *many], {"long_file": about_long, "many_files": about_many})


if __name__ == "__main__":
    main()
