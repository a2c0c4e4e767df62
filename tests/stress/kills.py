"""A thousand kills of embed, index, push, map and train: run again, all must end as if nothing had been, to the byte.

    python -m tests.stress.kills

Four of five kills come at the n-th call that changes a file (write, rename, fsync, unlink, …), whichever library makes
it; the numbers n of a command come in a shuffled order that reaches all of them before any comes again. The others come
at a random moment. A quarter of the runs is killed up to four times in a row before it may finish.

What may differ: the moment at which a manifest was begun; in a trained model's results, history and card the seconds
that it took, and its drawn report, which shows them; the order of the clips in a cache, which threads fill. A Lance
table is compared by its rows, for it names its files at random.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.benchmarks.common import Table, machine, report, say
from tests.stress.common import Remembered, below, megabytes, options, side_by_side, toy
from tests.stress.zygote import Done, Zygote

LOT = 10
RATE = 8000
Tree = dict[str, bytes | None]


@dataclass
class Scenario:
    """A command to be killed.

    Attributes:
        name: of the row in the table.
        command: given the folder of what it reads.
        share: of the kills.
        before: earlier commands that make what is there when it starts; each with what is done to the songs before.
        setup: as a `Request` has it.
        resume: the command that goes on where the first cannot be given again.
        codes: that it ends with.
    """

    name: str
    command: Callable[[Path], list[str]]
    share: int
    before: list[tuple[int, Callable[[Path], list[str]]]] = field(default_factory=list)
    setup: list[Any] = field(default_factory=list)
    resume: list[str] | None = None
    codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Prepared:
    """A scenario that was run undisturbed."""

    scenario: Scenario
    inputs: Path
    before: Path
    calls: int
    seconds: float
    faults: list[str]
    ends: dict[Path, Tree] = field(default_factory=dict)  # by the folder that it ran in, which an index remembers


def scenarios() -> list[Scenario]:
    """All commands, from nothing and from what an earlier run left."""
    made = []
    for format in ("npy", "matrix", "parquet", "jsonl"):
        for stamps in ([], ["--timestamps", "0.5"]):
            name = f"embed {format}" + (" with timestamps" if stamps else "")
            how = ["-o", "out", "--format", format, "--workers", "2", *stamps]
            first = functools.partial(_embed, how)
            made.append(Scenario(name, first, 30, codes=(3,)))
            made.append(Scenario(f"{name}, again", first, 50, before=[(1, first)], codes=(3,)))
    collection = functools.partial(_embed, ["-o", "out", "--format", "matrix"])
    index: Callable[[Path], list[str]] = lambda inputs: ["index", "out", "-o", "music.index"]  # noqa: E731
    push: Callable[[Path], list[str]] = lambda inputs: ["push", "out", "--to", "music.lance"]  # noqa: E731
    made_map: Callable[[Path], list[str]] = lambda inputs: ["map", "out", "-o", "map.html", "--overwrite"]  # noqa: E731
    made += [
        Scenario("index", index, 40, before=[(1, collection)]),
        Scenario("index, again", index, 50, before=[(1, collection), (1, index), (2, collection)]),
        Scenario("push", push, 40, before=[(1, collection)]),
        Scenario("push, again", push, 50, before=[(1, collection), (1, push), (2, collection)]),
        Scenario("map", made_map, 30, before=[(1, collection)]),
        Scenario("map, again", made_map, 30, before=[(1, collection), (1, made_map), (2, collection)]),
    ]
    frozen = functools.partial(_train, ["--freeze", "encoder"])
    resume: Callable[[Path], list[str]] = lambda inputs: ["train", "--resume", "out", "-q"]  # noqa: E731
    always = ["tests.stress.hooks:checkpoint_always"]
    made += [
        Scenario("train", functools.partial(_train, []), 60, setup=always, resume=resume(Path())),
        Scenario("train, frozen encoder", frozen, 50, setup=always, resume=resume(Path())),
        Scenario("train from a checkpoint", resume, 60, before=[(-1, functools.partial(_train, []))], setup=always),
    ]
    return made


def _embed(how: list[str], inputs: Path) -> list[str]:
    return ["embed", str(inputs / "songs"), "--model", str(inputs.parent / "toy"), "-q", *how]


def _train(how: list[str], inputs: Path) -> list[str]:
    start = ["--init", str(inputs.parent / "toy"), "--epochs", "2", "--batch-size", "5", "--valid", "0.34"]
    return ["train", str(inputs / "clips"), "-o", "out", "-q", "--precision", "fp32", *start, *how]


def write_inputs(inputs: Path, state: int) -> None:
    """Songs, in state 1, or 2 in which some are other, new or gone; and clips."""
    from tests.conftest import noise
    from tests.train.runs import write_clips

    songs = inputs / "songs"
    shutil.rmtree(songs, ignore_errors=True)
    suffixes = [".wav", ".flac", ".wav", ".mp3", ".aiff", ".ogg", ".wav", ".flac", ".wav"]
    for number in range(6) if state == 1 else (0, 1, 2, 3, 5, 6, 7, 8):
        changed = state == 2 and number in (1, 3)
        path = songs / ("sub" if number % 3 == 2 else ".") / f"{number}{suffixes[number]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(3000 + 2500 * number + 3000 * changed, number + 20 * changed), RATE)
    (songs / "broken.mp3").write_bytes(b"this is no music" * 20)
    (songs / "sub" / "empty.wav").write_bytes(b"")
    for number, (name, data) in enumerate(sorted(below(songs))):
        if data is not None:
            os.utime(songs / name, (1.6e9 + number, 1.6e9 + number + 1000 * len(data)))
    if not (inputs / "clips").exists():
        write_clips(inputs / "clips")


def prepare(zygote: Zygote, root: Path, scenario: Scenario) -> Prepared:
    """Make what a scenario starts from, and run it undisturbed."""
    inputs = root / re.sub(r"\W+", "-", scenario.name)
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir()
    work, before = inputs / "work", inputs / "before"
    work.mkdir()
    state = 1
    write_inputs(inputs, state)
    faults = []
    for wanted, earlier in scenario.before:
        if wanted == -1:  # killed in the middle, with a checkpoint
            done = zygote.run(earlier(inputs), work, setup=scenario.setup)
            calls = done.calls
            at = calls // 3
            while not (work / "out" / "checkpoint.safetensors").exists() or not done.hit:
                shutil.rmtree(work)
                work.mkdir()
                done = zygote.run(earlier(inputs), work, setup=scenario.setup, at=at)
                at += 7
            continue
        if wanted != state:
            write_inputs(inputs, state := wanted)
        done = zygote.run(earlier(inputs), work, setup=scenario.setup)
        faults += _amiss(done, (0, 3))
    if any(wanted == 1 for wanted, _ in scenario.before) and state == 1:
        write_inputs(inputs, 2)
    work.rename(before)
    prepared = Prepared(scenario, inputs, before, 0, 0.0, faults)
    end, done = _to_the_end(zygote, prepared, work)
    return replace(prepared, calls=done.calls, seconds=done.seconds, ends={work: end})


def undisturbed(zygote: Zygote, prepared: Prepared, work: Path) -> Tree:
    """What a scenario comes to in some folder."""
    if work not in prepared.ends:
        prepared.ends[work], _ = _to_the_end(zygote, prepared, work)
    return prepared.ends[work]


def _to_the_end(zygote: Zygote, prepared: Prepared, work: Path) -> tuple[Tree, Done]:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(prepared.before, work)
    done = zygote.run(prepared.scenario.command(prepared.inputs), work, setup=prepared.scenario.setup)
    prepared.faults.extend(_amiss(done, prepared.scenario.codes))
    end = tree(work)
    shutil.rmtree(work)
    return end, done


def trial(zygote: Zygote, folder: Path, prepared: Prepared, seed: int, number: int) -> dict[str, Any]:
    """Kill a command once or more, let it finish, and compare the end."""
    scenario = prepared.scenario
    random = np.random.default_rng([seed, sum(scenario.name.encode()), number])
    order = np.random.default_rng([seed, sum(scenario.name.encode())]).permutation(prepared.calls) + 1
    work = folder / "work"
    end = undisturbed(zygote, prepared, work)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(prepared.before, work)
    faults: list[str] = []
    kills, peak = 0, 0
    points: list[dict[str, Any]] = []
    command = scenario.command(prepared.inputs)
    for turn in range(int(random.integers(2, 5)) if random.random() < 0.25 else 1):
        if random.random() < 0.2:
            point: dict[str, Any] = {"kill_after": random.uniform(0, prepared.seconds)}
        else:
            at = order[number % len(order)] if turn == 0 else random.integers(1, prepared.calls + 1)
            point = {"at": int(at)}
        points.append(point)
        done, command = go_on(zygote, work, command, scenario, **point)
        kills += done.hit
        peak = max(peak, done.peak)
        if not done.hit:
            faults += _amiss(done, scenario.codes)
    done, command = go_on(zygote, work, command, scenario)
    faults += _amiss(done, scenario.codes)
    faults += differences(end, tree(work))
    return {"kills": kills, "faults": faults, "points": points, "peak": max(peak, done.peak)}


def go_on(zygote: Zygote, work: Path, command: list[str], scenario: Scenario, **options: Any) -> tuple[Done, list[str]]:
    """Run a command; where it says that there is something to go on with, go on with that, as a person would."""
    done = zygote.run(command, work, setup=scenario.setup, **options)
    if done.code == 1 and scenario.resume and "--resume" in done.err and command != scenario.resume:
        command = scenario.resume
        done = zygote.run(command, work, setup=scenario.setup, **options)
    return done, command


def _amiss(done: Done, codes: tuple[int, ...]) -> list[str]:
    if done.hung:
        return ["hangs"]
    if done.traceback or done.code not in codes:
        return [f"exit code {done.code}: {done.err.strip()[-300:]}"]
    return []


def tree(work: Path) -> Tree:
    """All that is below a directory, less what may differ."""
    files = dict(sorted(below(work)))
    if files.get("music.lance", b"") is None:
        import lance

        files = {path: data for path, data in files.items() if not path.startswith("music.lance/")}
        try:
            rows = lance.dataset(str(work / "music.lance")).to_table().to_pylist()
            files["music.lance"] = json.dumps(rows, default=repr, indent=1).encode()
        except (ValueError, OSError) as error:
            files["music.lance"] = f"cannot be read: {error}".encode()
    trained = "out/run.toml" in files
    shards = [path for path in files if re.search(r"(?:^|/)cache/\w+/\d{5}\.(npy|json)$", path)]
    for folder in {path.rpartition("/")[0] for path in shards}:
        files[f"{folder}/shards"] = _cached(work / folder)
    for path in shards:
        del files[path]
    for path, data in files.items():
        if data is None:
            continue
        if path.endswith("manifest.jsonl"):
            files[path] = re.sub(rb'"created": "[^"]*"', b"", data, count=1)
        elif trained and path.endswith((".json", ".jsonl")):
            files[path] = re.sub(rb'"(seconds|waiting|clips_per_second)": [\d.e+-]+', b"", data)
        elif trained and path.endswith("README.md"):
            files[path] = re.sub(rb"in \d+ s on", b"", data)
        elif trained and path.endswith("report.html"):
            files[path] = b""
    return files


def _cached(folder: Path) -> bytes:
    """What a cache of log-mels holds, in no order and however it is divided: threads fill it, and kills divide it."""
    entries = {}
    for index in folder.glob("*.json"):
        rows = np.load(index.with_suffix(".npy"))
        for line in json.loads(index.read_bytes()):
            line["data"] = rows[line.pop("first") :][: line["rows"]].tobytes().hex()
            entries[json.dumps(line["excerpt"])] = line
    return "\n".join(json.dumps(entries[name]) for name in sorted(entries)).encode()


def differences(expected: Tree, there: Tree) -> list[str]:
    """In words, what is other than expected."""
    words = [f"{path} is missing" for path in sorted(expected.keys() - there.keys())]
    words += [f"{path} is left over" for path in sorted(there.keys() - expected.keys())]
    for path in sorted(expected.keys() & there.keys()):
        a, b = expected[path], there[path]
        if a != b:
            lines = (a or b"").splitlines(), (b or b"").splitlines()
            order = " in the order of its lines only" if sorted(lines[0]) == sorted(lines[1]) else ""
            words.append(f"{path} differs{order}" + (f": {b[:200]!r}" if b and b.startswith(b"cannot be read") else ""))
    return words


def main() -> None:
    chosen, work = options("kills", 0, 1000)
    about = machine()
    toy(work)
    remembered = Remembered(work / "done.jsonl")
    everything = scenarios()
    prepared: dict[str, Prepared] = {}
    shares = sum(one.share for one in everything)
    lots = []
    for one in everything:
        # A tenth more than is asked for: some runs end before the kill comes.
        trials = -(-11 * chosen.count * one.share // (10 * shares))
        lots += [(one.name, first, min(first + LOT, trials)) for first in range(0, trials, LOT)]
    lots.sort(key=lambda lot: lot[1])  # all commands soon, rather than one after the other

    with Zygote(training=True) as zygote:
        for number, one in enumerate(everything, 1):
            prepared[one.name] = prepare(zygote, work, one)
            say(f"{number}/{len(everything)} undisturbed: {one.name}, {prepared[one.name].calls} calls")

    def lot(zygote: Zygote, folder: Path, item: tuple[str, int, int]) -> Any:
        name, first, last = item
        done = [trial(zygote, folder, prepared[name], chosen.seed, number) for number in range(first, last)]
        for number, one in enumerate(done, first):
            for fault in one["faults"]:
                say(f"fault: {name}, trial {number}, {one['points']}: {fault}")
        return done

    def called(item: tuple[str, int, int]) -> str:
        return f"{item[0]}:{item[1]}"

    side_by_side(lots, called, lot, remembered, work, chosen.jobs)
    _report(chosen.seed, about, prepared, remembered.results)


def _report(seed: int, about: dict[str, Any], prepared: dict[str, Prepared], results: dict[str, Any]) -> None:
    table = Table(
        "Kills",
        [
            "command",
            "calls that change files",
            "kills",
            "different moments",
            "ended as undisturbed",
            "did not",
            "memory",
        ],
    )
    kinds: Counter[str] = Counter()
    sums = Counter[str]()
    for name, one in prepared.items():
        trials = [trial for key, lot in results.items() if key.rpartition(":")[0] == name for trial in lot]
        wrong = [trial for trial in trials if trial["faults"]]
        kills = sum(trial["kills"] for trial in trials)
        moments = {point["at"] for trial in trials for point in trial["points"] if "at" in point}
        peak = max((trial["peak"] for trial in trials), default=0)
        table.add(name, one.calls, kills, len(moments), len(trials) - len(wrong), len(wrong), megabytes(peak))
        sums.update(kills=kills, good=len(trials) - len(wrong), bad=len(wrong) + bool(one.faults))
        for words in [*one.faults, *(words for trial in wrong for words in trial["faults"])]:
            kinds[f"{name}: {words[:300]}"] += 1
    table.add("all", "", sums["kills"], "", sums["good"], sums["bad"], "")
    wrongs = Table("Faults", ["what", "times"])
    for words, number in kinds.most_common():
        wrongs.add(words.replace("\n", " "), number)
    report(
        "kills",
        "Kills",
        "kills",
        about,
        [table, *([wrongs] if kinds else []), "Memory is the most that was resident, libraries included."],
        {"seed": seed, "trials": results, "faults": dict(kinds)},
        package="stress",
    )
    raise SystemExit(1 if kinds else 0)


if __name__ == "__main__":
    main()
