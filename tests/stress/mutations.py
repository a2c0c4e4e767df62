"""Ten thousand damaged files of all formats: none may crash, hang, be lost, or come out as anything but a unit vector.

    python -m tests.stress.mutations

The files follow from the seed. They are embedded some hundred a run, each run a process of its own; if one crashes,
hangs, says what is not ours to say, or takes much memory, it is run again by halves until the file is found. A file on
which a library crashes is told to nobody but the person at the keyboard: tables only say that there was one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.common import Table, machine, report, say
from tests.stress.common import Remembered, megabytes, options, side_by_side, toy
from tests.stress.corpus import MUTATIONS, Clean, clean_files, mutated
from tests.stress.zygote import Done, Zygote

CHUNK = 500
FORMATS = ("npy", "matrix", "parquet", "jsonl")
ROOM = 500e6
"""Bytes that a run may take beyond what it starts with."""

_OURS = re.compile(r"^$|^failed$|^  .+: .+$|^  … and \d+ more, in the manifest$|^poolembed: |^  [^ ]")


@dataclass
class Chunk:
    """What became of some files; `faults` are words and the numbers of files, -1 for none in particular."""

    counts: dict[str, int] = field(default_factory=dict)  # "format|way|outcome"
    faults: list[tuple[str, int]] = field(default_factory=list)
    peak: int = 0
    resting: int = 0
    seconds: float = 0.0
    songs: int = 0


def run_chunk(zygote: Zygote, folder: Path, files: Sequence[tuple[int, Clean, str, bytes]], model: Path) -> Chunk:
    """Embed files and check all that can be said of every run; files are ``(number, clean, way, data)``."""
    chunk = Chunk(resting=zygote.resting, songs=len(files))
    wild = _check(zygote, folder, files, model, chunk)
    suspects = list(files) if wild else []
    while len(suspects) > 1:  # one culprit of each kind of trouble is enough to go on with
        half = suspects[: len(suspects) // 2]
        suspects = half if _check(zygote, folder, half, model, Chunk()) else suspects[len(half) :]
    if suspects:
        number, clean, way, _ = suspects[0]
        alone = bool(_check(zygote, folder, suspects, model, Chunk()))
        chunk.faults.append((f"{wild}: {clean.name}, {way}" + ("" if alone else ", but not alone"), number))
    return chunk


def _check(
    zygote: Zygote, folder: Path, files: Sequence[tuple[int, Clean, str, bytes]], model: Path, chunk: Chunk
) -> str | None:
    """Embed files, note what became of them, and say what of the whole run was not as it should be."""
    shutil.rmtree(folder)
    (folder / "songs").mkdir(parents=True)
    names = {}
    for number, clean, way, data in files:
        name = f"songs/{number:06}{clean.suffix}"
        (folder / name).write_bytes(data)
        names[name] = (number, clean.name, way)
    (folder / "list").write_text("".join(f"{name}\n" for name in names))
    first = files[0][0]
    format = FORMATS[first // CHUNK % len(FORMATS)]
    command = ["embed", "--files-from", "list", "-o", "out", "--format", format, "--model", str(model), "-q", "--json"]
    if first // CHUNK // len(FORMATS) % 2:
        command += ["--timestamps", "0.5"]
    done = zygote.run(command, folder)
    chunk.peak, chunk.seconds = done.peak, done.seconds
    wild = _wild(done, zygote.resting)
    if done.code in (0, 3):
        _check_output(folder / "out", format, names, done, chunk)
    return wild


def _wild(done: Done, resting: int) -> str | None:
    if done.hung:
        return "hangs"
    if done.code < 0:
        return f"ended by signal {-done.code}"
    if done.traceback:
        return f"traceback: {re.sub(r'/.*/', '…/', done.traceback)[:200]}"
    if done.code not in (0, 3):
        return f"exit code {done.code}: {done.err.strip()[:200]}"
    others = [line for line in done.err.splitlines() if not _OURS.match(line)]
    if others:
        return f"on standard error: {others[0][:200]}"
    if done.peak - resting > ROOM:
        return f"memory: {megabytes(done.peak - resting)} more than at the start"
    return None


def _check_output(out: Path, format: str, names: dict[str, tuple[int, str, str]], done: Done, chunk: Chunk) -> None:
    summary = json.loads(done.out)
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_bytes().splitlines()][1:]
    times = Counter(record["path"] for record in records)
    for name, (number, _, _) in names.items():
        if times[name] != 1:
            chunk.faults.append((f"{times[name]} times in the manifest", number))
    for name in times.keys() - names.keys():
        chunk.faults.append((f"in the manifest and not given: {name}", -1))
    if len({record["key"] for record in records}) != len(records):
        chunk.faults.append(("a key twice in the manifest", -1))
    good = [record for record in records if record["status"] == "ok"]
    if (summary["found"], summary["embedded"], summary["failed"]) != (len(names), len(good), len(names) - len(good)):
        chunk.faults.append((f"the summary says {summary['embedded']} embedded, {summary['failed']} failed", -1))
    if done.code != (3 if len(good) < len(names) else 0):
        chunk.faults.append((f"exit code {done.code} with {len(names) - len(good)} failed", -1))
    vectors = _vectors(out, format, good)
    for record in records:
        number, clean, way = names.get(record["path"], (-1, "?", "?"))
        outcome = "failed" if record["status"] != "ok" else "noted" if record["reason"] else "embedded"
        key = f"{clean}|{way}|{outcome}"
        chunk.counts[key] = chunk.counts.get(key, 0) + 1
        reason = record["reason"] or ""
        if outcome == "failed" and not reason.strip():
            chunk.faults.append(("failed without a reason", number))
        if "fault of poolembed" in reason or "Errno" in reason:
            chunk.faults.append((f"reason: {reason}", number))
        if outcome != "failed":
            vector = vectors.get(record["key"])
            if vector is None or vector.ndim != 1 or not np.isfinite(vector).all():
                chunk.faults.append(("no vector, or not finite", number))
            elif abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) > 1e-5:
                chunk.faults.append((f"a vector of length {np.linalg.norm(vector)}", number))


def _vectors(out: Path, format: str, good: list[dict[str, Any]]) -> dict[str, Any]:
    """Key -> vector."""
    if format == "npy":
        return {record["key"]: np.load(out / record["output"]) for record in good}
    rows: Any
    if format == "matrix":
        rows = np.load(out / "embeddings.npy")
    elif format == "jsonl":
        lines = (out / "embeddings.jsonl").read_bytes().splitlines()
        rows = np.array([json.loads(line)["embedding"] for line in lines], np.float32)
    else:
        import pyarrow.parquet

        rows = np.array(pyarrow.parquet.read_table(out / "embeddings.parquet")["embedding"].to_pylist(), np.float32)
    assert len(rows) == len(good)
    return {record["key"]: rows[record["row"]] for record in good}


def chunk_of(files: list[Clean], seed: int, first: int, last: int) -> list[tuple[int, Clean, str, bytes]]:
    """Damaged files by their numbers."""
    return [(number, *mutated(files, seed, number)) for number in range(first, last)]


def main() -> None:
    chosen, work = options("mutations", 0, 10_000)
    about = machine()
    files, model = clean_files(), toy(work)
    remembered = Remembered(work / "done.jsonl")
    firsts = list(range(0, chosen.count, CHUNK))

    def damaged(zygote: Zygote, folder: Path, first: int) -> Any:
        last = min(first + CHUNK, chosen.count)
        return vars(run_chunk(zygote, folder, chunk_of(files, chosen.seed, first, last), model))

    def others(zygote: Zygote, folder: Path, which: str) -> Any:
        if which == "clean":
            return vars(run_chunk(zygote, folder, [(i, one, "none", one.data) for i, one in enumerate(files)], model))
        return vars(run_chunk(zygote, folder, chunk_of(files, chosen.seed, 0, min(4 * CHUNK, chosen.count)), model))

    side_by_side(["clean", "four"], str, others, remembered, work, chosen.jobs, training=False)
    side_by_side(firsts, str, damaged, remembered, work, chosen.jobs, training=False)
    _report(chosen.seed, about, files, remembered.results)


def _report(seed: int, about: dict[str, Any], files: list[Clean], results: dict[str, Any]) -> None:
    clean, four = Chunk(**results.pop("clean")), Chunk(**results.pop("four"))
    chunks = [Chunk(**one) for one in results.values()]
    counts: Counter[str] = Counter()
    for chunk in chunks:
        counts.update(chunk.counts)
    faults = [fault for chunk in [clean, *chunks] for fault in chunk.faults]
    # Never which file: some make a library crash, and the seed would say how.
    kinds = Counter(_kind(words) for words, _ in faults)
    if failed := [key for key in clean.counts if not key.endswith("|embedded")]:
        kinds["an undamaged file is failed or noted: " + ", ".join(key.split("|")[0] for key in failed)] += len(failed)
    for words, number in faults:
        say(f"fault: file {number}: {words}")

    def table(title: str, column: int, rows: Sequence[str]) -> Table:
        made = Table(title, [title, "files", "embedded", "embedded with a note", "failed with a reason"])
        for row in rows:
            of = {
                outcome: sum(n for key, n in counts.items() if key.split("|")[column] == row and key.endswith(outcome))
                for outcome in ("|embedded", "|noted", "|failed")
            }
            made.add(row, sum(of.values()), *of.values())
        return made

    peaks = [chunk.peak for chunk in chunks]
    summary = Table("All", ["what", "number"])
    songs = sum(chunk.songs for chunk in chunks)
    summary.add("damaged files", f"{songs:,}")
    summary.add("formats", len(files))
    summary.add("once each in the manifest, with a unit vector or a reason", f"{sum(counts.values()):,}")
    summary.add("runs", len(chunks))
    summary.add("memory of a run at its peak, median", megabytes(float(np.median(peaks))))
    summary.add("memory of a run at its peak, most", megabytes(max(peaks)))
    if four.songs > chunks[0].songs:
        summary.add(f"memory of one run of {four.songs:,} at its peak", megabytes(four.peak))
    summary.add("of which it had when it started", megabytes(clean.resting))
    summary.add("faults", sum(kinds.values()))
    wrong = Table("Faults", ["what", "times"])
    for words, number in kinds.most_common():
        wrong.add(words, number)
    report(
        "mutations",
        "Damaged files",
        "mutations",
        about,
        [
            summary,
            *([wrong] if kinds else []),
            table("Formats", 0, [one.name for one in files]),
            table("Ways of damaging", 1, list(MUTATIONS)),
        ],
        {"seed": seed, "counts": dict(counts), "faults": dict(kinds)},
        package="stress",
    )
    raise SystemExit(1 if kinds else 0)


def _kind(words: str) -> str:
    if words.startswith(("ended by signal", "hangs")):
        return "a run crashed or hung in a library; which file is not said here"
    if words.startswith("memory"):
        return "more memory than allowed"
    return re.sub(r"0x[0-9a-f]+|\d{3,}", "…", words)


if __name__ == "__main__":
    main()
