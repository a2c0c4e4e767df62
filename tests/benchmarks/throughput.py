"""How fast a directory of songs is embedded, beside what its stages allow and beside loops without poolembed.

python -m tests.benchmarks.throughput SONGS_DIR [--runs 3] [--limit-minutes M] [--model base] [--precision auto]
python -m tests.benchmarks.throughput SONGS_DIR --sweep        # end to end by batch size and workers instead

`fetch_songs.sh` makes a directory of songs. All numbers are seconds of audio per second of wall time ("x real time").
Each run measures every row once, one after the other, so that a disturbance hits all rows alike; the tables show the
medians. The songs are in the page cache. Where torch has CUDA the network runs there, in the stages as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

import poolembed
from poolembed.bundle import load_bundle
from poolembed.embed.device import (
    DeviceName,
    PrecisionName,
    choose_precision,
    default_batch_size,
    exact_and_single_threaded,
)
from poolembed.embed.outputs import open_output
from poolembed.embed.run import embed_songs, find_songs
from poolembed.embed.song import Embedded
from poolembed.identity import ModelIdentity
from tests.benchmarks import stages
from tests.benchmarks.common import Table, cores, machine, middle, on_bare_threads, report, say
from tests.benchmarks.stages import Song, longest_first, total_seconds

Vectors = NDArray[np.float32]
BATCHES = (1, 2, 4, 8, 16, 32)
WORKERS = (1, 2, 3, 4)
STAGES = {
    "D: decode to mono": "decode",
    "R: resample": "resample",
    "M: log-mel": "mel",
    "N: network, fold, pack": "network",
}


class Bench:
    """Everything that is measured, as functions that return x real time.

    Args:
        directory: of the songs.
        minutes: take no more than about so many minutes of them; None for all.
        plain_minutes: the same for the plain loop.
        model: name or path of a bundle.
        precision: of the network.
    """

    def __init__(
        self, directory: str, minutes: float | None, plain_minutes: float | None, model: str, precision: PrecisionName
    ) -> None:
        self.device: DeviceName = "cuda" if torch.cuda.is_available() else "cpu"
        self._name, self._where = model, torch.device(self.device)
        dtype = choose_precision(precision, self._where)
        head = load_bundle(model).network.requires_grad_(False)
        self.batch_size = default_batch_size(self._where, head.config)
        network = head.for_inference(self._where, dtype)
        say("decoding all songs once")
        self.songs = stages.find_songs(directory, minutes)
        self.few = self.songs if plain_minutes is None else stages.find_songs(directory, plain_minutes)
        # With few songs a thread the last song to finish would decide, here as in the stages.
        self.repeats = -(-8 * cores() // len(self.songs))
        self._stages = stages.Stages(self.songs, network, self.batch_size)
        self._bare = stages.BareLoop(head, network, self.batch_size)
        self._plain = stages.PlainLoop(head)
        self._model = self.load(precision)
        self.precision = self._model.precision
        list(self._model.outcomes([self.few[0].path]))

    def load(
        self, precision: PrecisionName, *, device: DeviceName | None = None, batch: int | None = None, workers: int = 0
    ) -> poolembed.Model:
        return poolembed.load(
            self._name, device=device or self.device, precision=precision, batch_size=batch, workers=workers or None
        )

    def decode(self, of: str | None = None) -> float:
        songs = [song for song in self.songs if of in (None, song.format)] * self.repeats
        return total_seconds(songs) / on_bare_threads(cores(), longest_first(songs), stages.decode)

    def resample(self) -> float:
        return self._stages.resample(cores())

    def mel(self) -> float:
        return self._stages.mel(cores())

    def network(self, batch_size: int | None = None) -> float:
        return self._stages.encode(cores(), batch_size)

    def end_to_end(self) -> float:
        return self.to_files(self.songs)

    def bare_threads(self) -> float:
        songs = self.songs * self.repeats
        with exact_and_single_threaded():
            return total_seconds(songs) / on_bare_threads(cores(), longest_first(songs), self._bare.embed)

    def end_to_end_few(self) -> float:
        return self.to_files(self.few)

    def to_files(self, songs: list[Song]) -> float:
        """What `poolembed embed` does: files found, embedded, written as one .npy per song, with their manifest."""
        identity = ModelIdentity(self._model.name, self._model.fingerprint, self._model.embedding_size)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            found = find_songs([song.path for song in songs])
            with open_output(
                folder, format="npy", dtype="float32", timestamps=None, model=identity, overwrite=False
            ) as output:
                summary = embed_songs(lambda: self._model, found, output)
            seconds = time.perf_counter() - began
        if summary.embedded < len(songs):
            raise SystemExit("not every song could be embedded")
        return total_seconds(songs) / seconds

    def plain(self) -> float:
        began = time.perf_counter()
        for song in self.few:
            self._plain.embed(song.path)
        return total_seconds(self.few) / (time.perf_counter() - began)

    def timed(self, model: poolembed.Model, songs: list[Song]) -> tuple[float, Vectors]:
        began = time.perf_counter()
        outcomes = list(model.outcomes(song.path for song in songs))
        seconds = time.perf_counter() - began
        vectors = [outcome.embedding for outcome in outcomes if isinstance(outcome, Embedded)]
        if len(vectors) < len(songs):
            raise SystemExit("not every song could be embedded")
        return total_seconds(songs) / seconds, np.stack(vectors)

    def plain_vectors(self) -> Vectors:
        return np.stack([self._plain.embed(song.path).numpy() for song in self.few])


def measure(bench: Bench, runs: int) -> tuple[list[Table | str], dict[str, object]]:
    formats = sorted({song.format for song in bench.songs})
    rows: dict[str, Callable[[], float]] = {name: getattr(bench, method) for name, method in STAGES.items()}
    rows["end to end"] = bench.end_to_end
    if bench.device == "cpu":
        rows["bare threads"] = bench.bare_threads
    if bench.few is not bench.songs:
        rows["end to end, same songs"] = bench.end_to_end_few
    rows["plain loop"] = bench.plain
    rows |= {f"decode {each}": lambda each=each: bench.decode(each) for each in formats}  # type: ignore[misc]
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for run in range(runs):
        for name, row in rows.items():
            speeds[name].append(row())
            say(f"run {run + 1}: {name} {speeds[name][-1]:.0f}")
    bounds = [1 / sum(1 / speed for speed in run) for run in zip(*(speeds[name] for name in STAGES), strict=True)]
    bound = 1 / sum(1 / middle(speeds[name]) for name in STAGES)

    def cells(name: str) -> tuple[str, str]:
        return f"{middle(speeds[name]):.0f}", "  ".join(f"{speed:.0f}" for speed in speeds[name])

    each = Table(f"Each stage alone, on {cores()} bare threads", ["", "x real time", "single runs"])
    for name in STAGES:
        each.add(name, *cells(name))
    each.add("**bound** 1/(1/D + 1/R + 1/M + 1/N)", f"**{bound:.0f}**", "  ".join(f"{b:.0f}" for b in bounds))
    whole = Table("Whole songs", ["", "x real time", "of the bound", "single runs"])
    for name in ("end to end", "bare threads"):
        if name in speeds:
            label = "**poolembed, end to end**" if name == "end to end" else f"{cores()} bare threads, no engine"
            median, single = cells(name)
            whole.add(label, median, f"{middle(speeds[name]) / bound:.2f}", single)
    plain = Table(f"Beside plain code, {total_seconds(bench.few) / 60:.0f} minutes of the songs", [*each.columns])
    same = "end to end, same songs" if "end to end, same songs" in speeds else "end to end"
    plain.add("poolembed, end to end", *cells(same))
    plain.add("librosa.load + melspectrogram + same network", *cells("plain loop"))
    times = middle(speeds[same]) / middle(speeds["plain loop"])
    plain.add("**poolembed is so many times faster**", f"**{times:.1f}**", "")
    decode = Table("D by format", ["format", "songs", "minutes", *each.columns[1:]])
    for suffix in formats:
        songs = [song for song in bench.songs if song.format == suffix]
        decode.add(suffix, len(songs), f"{total_seconds(songs) / 60:.0f}", *cells(f"decode {suffix}"))
    parts: list[Table | str] = [each, whole, plain, decode]
    if bench.device == "cuda":
        parts.insert(1, _device_share({name: middle(values) for name, values in speeds.items()}))
    agreement, cosines = _precisions(bench)
    return [*parts, agreement], {"bound": bound, "bounds": bounds, "x_real_time": speeds, "precisions": cosines}


def _device_share(speed: dict[str, float]) -> Table:
    decode, resample, mel, network = (speed[name] for name in STAGES)
    table = Table("The device and the cores", ["", "x real time", "end to end, of it"])
    for name, limit in {
        "decode only, all cores": decode,
        "decode and resample, all cores": 1 / (1 / decode + 1 / resample),
        "device only: log-mel and network (the share of the time that the device is busy)": 1 / (1 / mel + 1 / network),
    }.items():
        table.add(name, f"{limit:.0f}", f"{speed['end to end'] / limit:.2f}")
    return table


def _precisions(bench: Bench) -> tuple[Table, dict[str, object]]:
    """One more run in each precision, and how far its embeddings are from those of the CPU in float32."""
    say("comparing precisions")
    _, reference = bench.timed(bench.load("fp32", device="cpu"), bench.songs)
    names: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16") if bench.device == "cuda" else ("fp32", "bf16")
    table = Table("Cosine to the embeddings by the CPU in fp32", ["", "lowest", "median", "x real time, one run"])
    data: dict[str, object] = {}
    for name in names:
        speed, vectors = bench.timed(bench.load(name), bench.songs * bench.repeats)
        cosines = (vectors[: len(reference)] * reference).sum(-1)
        table.add(f"{bench.device} {name}", f"{cosines.min():.6f}", f"{np.median(cosines):.6f}", f"{speed:.0f}")
        data[name] = {"cosines": cosines.tolist(), "x_real_time": speed}
    places = [bench.songs.index(song) for song in bench.few]
    cosines = (bench.plain_vectors() * reference[places]).sum(-1)
    table.add("plain loop (librosa, fp32)", f"{cosines.min():.6f}", f"{np.median(cosines):.6f}", "")
    data["plain loop"] = {"cosines": cosines.tolist()}
    return table, data


def sweep(bench: Bench, runs: int, precision: PrecisionName) -> tuple[list[Table | str], dict[str, object]]:
    speeds: dict[str, list[float]] = {}
    for run in range(runs):
        for batch in BATCHES:
            speeds.setdefault(f"network alone, batch {batch}", []).append(bench.network(batch))
            for workers in WORKERS:
                speed = bench.timed(bench.load(precision, batch=batch, workers=workers), bench.songs)[0]
                speeds.setdefault(f"batch {batch}, workers {workers}", []).append(speed)
            say(f"run {run + 1}: batch {batch} done")
    table = Table(
        f"x real time, median of {runs}", ["batch size", *(f"{n} workers" for n in WORKERS), "N alone, all cores"]
    )
    for batch in BATCHES:
        names = [*(f"batch {batch}, workers {workers}" for workers in WORKERS), f"network alone, batch {batch}"]
        table.add(batch, *(f"{middle(speeds[name]):.0f}" for name in names))
    return [table], {"x_real_time": speeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", metavar="SONGS_DIR")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--limit-minutes", type=float, help="take no more than about M minutes of the songs", metavar="M"
    )
    parser.add_argument("--plain-minutes", type=float, help="the same for the plain loop", metavar="M")
    parser.add_argument("--model", default="base")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--sweep", action="store_true", help="batch sizes and workers instead")
    args = parser.parse_args()
    about = machine()
    bench = Bench(args.songs, args.limit_minutes, args.plain_minutes, args.model, args.precision)
    if bench.device == "cuda":
        about["device"] = torch.cuda.get_device_name()
    settings = f"Model {args.model}, {bench.device}, {bench.precision}"
    settings += "" if args.sweep else f", batches of {bench.batch_size} windows, {cores()} workers"
    minutes = total_seconds(bench.songs) / 60
    settings += f". {len(bench.songs)} songs, {minutes:.0f} minutes" + (
        f", taken {bench.repeats} times over" if bench.repeats > 1 and not args.sweep else ""
    )
    settings += f". {args.runs} interleaved runs; medians."
    if args.sweep:
        parts, data = sweep(bench, args.runs, args.precision)
    else:
        parts, data = measure(bench, args.runs)
    heading = "End to end by batch size and workers" if args.sweep else "Throughput"
    name = ("sweep" if args.sweep else "throughput") + ("-cuda" if bench.device == "cuda" else "")
    command = "throughput SONGS_DIR" + (" --sweep" if args.sweep else "")
    data = {"songs": len(bench.songs), "minutes": minutes, "settings": settings, **data}
    report(name, heading, command, about, [settings, *parts], data)


if __name__ == "__main__":
    main()
