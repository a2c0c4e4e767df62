"""Full disks, forbidden directories, vanishing files, closed pipes and their like: said in a line, and made good after.

    python -m tests.stress.conditions

Whatever befalls a run, it ends with an exit code that says so and a message that says what to do, never a traceback;
and once it is over, the same command ends as if nothing had happened, to the byte (`tests.stress.kills` says what may
differ). Most of it is injected: from some call on, every call that writes fails as on a full disk. What needs root, or
a machine that may mount, is left out elsewhere, and the table says so.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.common import Table, machine, report, say
from tests.conftest import noise
from tests.stress.common import Remembered, below, megabytes, options, side_by_side, toy
from tests.stress.kills import RATE, Prepared, differences, go_on, prepare, scenarios, tree, undisturbed
from tests.stress.zygote import ROOT, Done, Zygote

NOBODY = 65534
SHORT = "what was written last cannot be read|it came out short"
"""What is said of a last write that came short, where the library that made it did not look."""
IMPORTS = [
    "pyarrow.parquet",
    "lance",
    "sklearn.manifold",
    "usearch.index",
    "safetensors.torch",
    "rich.table",
    "numpy.f2py",
    "importlib.readers",
]
SOME = (
    "embed npy",
    "embed matrix with timestamps, again",
    "embed parquet",
    "embed jsonl, again",
    "index, again",
    "push, again",
    "map",
    "train, frozen encoder",
    "train from a checkpoint",
)
CHANGED = ("embed npy", "embed matrix", "embed parquet", "embed jsonl with timestamps")
EMBEDS = tuple(name for name in SOME if name.startswith("embed"))


@dataclass
class Outcome:
    """What became of the runs of a row: exit code -> how many, what was amiss, and the most memory."""

    codes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    peak: int = 0
    skipped: str = ""

    def take(self, name: str, done: Done, codes: Sequence[int], says: str = "") -> None:
        """Count a run that was to end with one of some codes and, if it failed, to say something."""
        self.codes[str(done.code)] = self.codes.get(str(done.code), 0) + 1
        self.peak = max(self.peak, done.peak)
        said = done.err.strip()[-400:]
        if done.hung:
            self.faults.append(f"{name}: hangs")
        elif done.traceback or done.code not in codes:
            self.faults.append(f"{name}: exit code {done.code}: {said}")
        elif done.code == 1 and not (re.search(says, done.err) and "poolembed: " in done.err):
            self.faults.append(f"{name}: does not say {says!r}: {said}")


Row = Callable[[Zygote, Path, dict[str, Prepared], int], Outcome]


def _start(folder: Path, prepared: Prepared) -> Path:
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(prepared.before, work)
    return work


def _disturbed(
    outcome: Outcome,
    zygote: Zygote,
    folder: Path,
    prepared: Prepared,
    *,
    codes: Sequence[int] = (1,),
    says: str = "",
    within: Callable[[Path], Any] | None = None,
    **run: Any,
) -> None:
    """Run under a condition, then without, and compare; a run that claims to have done all must have done it."""
    scenario = prepared.scenario
    end = undisturbed(zygote, prepared, folder / "work")
    work = _start(folder, prepared)
    command = scenario.command(prepared.inputs)
    with ExitStack() as lifted:
        if within is not None:
            lifted.enter_context(within(work))
        done = zygote.run(command, work, setup=scenario.setup, **run)
    outcome.take(scenario.name, done, codes, says)
    if done.code in scenario.codes and done.code != 3:  # with 3, songs may have failed for want of something
        outcome.faults += [f"{scenario.name}: ends with {done.code}, and {w}" for w in differences(end, tree(work))]
    done, _ = go_on(zygote, work, command, scenario)
    outcome.take(f"{scenario.name}, then", done, scenario.codes)
    outcome.codes[str(done.code)] -= 1
    outcome.faults += [f"{scenario.name}, then: {w}" for w in differences(end, tree(work))]


def failing(error: int, lasting: bool) -> Row:
    """Calls fail, chosen at random among all calls of all commands."""

    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        random = np.random.default_rng([error, lasting])
        calls = [(one, at) for one in all_prepared.values() for at in range(1, one.calls + 1)]
        chosen = random.permutation(len(calls))[:count]
        for one, at in (calls[number] for number in sorted(chosen.tolist())):
            before = len(outcome.faults)
            # What is only tidied up, or tried, may fail without a word: 0 and 3 are good if all is there.
            codes = (1, *one.scenario.codes)
            how = {"at": at, "error": error, "lasting": lasting, "below": str(folder)}
            _disturbed(outcome, zygote, folder, one, codes=codes, says=f"{os.strerror(error)}|{SHORT}", **how)
            outcome.faults[before:] = [f"call {at}: {fault}" for fault in outcome.faults[before:]]
        return outcome

    return row


def _interrupted(number: int) -> Row:
    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        random = np.random.default_rng(number)
        for one in all_prepared.values():
            for _ in range(max(1, count // 100)):
                at = int(random.integers(1, one.calls + 1))
                codes = (128 + number, *one.scenario.codes)
                if not one.scenario.name.startswith(("embed", "push", "train")):
                    codes += (-number,)  # has nothing to finish
                before = len(outcome.faults)
                _disturbed(outcome, zygote, folder, one, codes=codes, at=at, strike=number)
                outcome.faults[before:] = [f"call {at}: {fault}" for fault in outcome.faults[before:]]
        return outcome

    return row


def _limited(resource: str, values: Sequence[int], says: str = "", names: Sequence[str] = SOME) -> Row:
    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        codes = (0, 1, 3)
        for name in names:
            for value in values:
                before = len(outcome.faults)
                _disturbed(
                    outcome,
                    zygote,
                    folder,
                    all_prepared[name],
                    codes=codes,
                    says=says,
                    resources={resource: value},
                    imports=IMPORTS if resource == "AS" else [],
                )
                outcome.faults[before:] = [f"{value}: {fault}" for fault in outcome.faults[before:]]
        return outcome

    return row


def _read_only(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    outcome = Outcome()

    @contextmanager
    def forbidden(work: Path) -> Iterator[None]:
        paths = [work, *(path for path in work.rglob("*") if not path.is_symlink())]
        modes = {path: path.stat().st_mode for path in paths}
        for path, mode in modes.items():
            path.chmod(mode & 0o555)
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode)

    for name in SOME:
        user = NOBODY if os.geteuid() == 0 else None
        _disturbed(
            outcome,
            zygote,
            folder,
            all_prepared[name],
            says="ermission denied",
            within=forbidden,
            user=user,
            imports=IMPORTS,
        )
    return outcome


def _small_disk(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    outcome = Outcome()
    for size in (16, 40, 64):

        @contextmanager
        def small(work: Path, size: int = size) -> Iterator[None]:
            aside = work.with_name("aside")
            shutil.rmtree(aside, ignore_errors=True)
            work.rename(aside)
            work.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", work], check=True)
            try:
                with suppress(OSError, shutil.Error):
                    shutil.copytree(aside, work, dirs_exist_ok=True)
                yield
                kept = work.with_name("kept")
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(work, kept)
            finally:
                subprocess.run(["umount", work], check=True)
                work.rmdir()
            kept.rename(work)

        for name in ("embed npy", "embed matrix", "embed parquet with timestamps", "embed jsonl", "train"):
            try:
                _disturbed(
                    outcome,
                    zygote,
                    folder,
                    all_prepared[name],
                    codes=(1, 3, 0),
                    says=r"No space left|has .* left",
                    within=small,
                )
            except (subprocess.CalledProcessError, FileNotFoundError):
                outcome.skipped = "nothing can be mounted here"
                return outcome
    return outcome


def _changing(hook: str) -> Row:
    """Songs change under a run; the run after it must end as one that found them so to begin with."""

    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        for name in (name for name in CHANGED if name in all_prepared):
            one = all_prepared[name]
            work = _start(folder, one)
            inputs = folder / "inputs"
            shutil.rmtree(inputs, ignore_errors=True)
            shutil.copytree(one.inputs / "songs", inputs / "songs")
            shutil.copytree(one.inputs.parent / "toy", folder / "toy", dirs_exist_ok=True)
            command = one.scenario.command(inputs)
            done = zygote.run(command, work, setup=[f"tests.stress.hooks:{hook}", str(inputs / "songs")])
            outcome.take(name, done, [3])
            outcome.take(f"{name}, then", zygote.run(command, work), [3])
            fresh = folder / "fresh"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            outcome.take(f"{name}, anew", zygote.run(command, fresh), [3])
            there, expected = _embeddings(work / "out", name), _embeddings(fresh / "out", name)
            lost = [key for key, value in expected.items() if there.get(key) != value]
            outcome.faults += [f"{name}: {key} is not embedded as it is now" for key in lost]
        return outcome

    return row


def _embeddings(out: Path, name: str) -> dict[str, tuple[float, ...]]:
    """Path -> embedding of the songs that are there, by the library's own reading."""
    from poolembed.search.collection import open_collection

    opened = open_collection(out)
    rows = {path: tuple(np.asarray(opened.matrix[row]).tolist()) for row, path in enumerate(opened.paths)}
    return {path: row for path, row in rows.items() if Path(path).is_file() and Path(path).stat().st_size}


def _removed(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    outcome = Outcome()
    for name in (name for name in CHANGED if name in all_prepared):
        one = all_prepared[name]
        end = undisturbed(zygote, one, folder / "work")
        work = _start(folder, one)
        command = one.scenario.command(one.inputs)
        done = zygote.run(command, work, setup=["tests.stress.hooks:removed_midway", str(work / "out")])
        outcome.take(name, done, [1])
        done = zygote.run(command, work)
        outcome.take(f"{name}, then", done, one.scenario.codes)
        outcome.faults += [f"{name}, then: {words}" for words in differences(end, tree(work))]
    return outcome


def _clock(hook: str) -> Row:
    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        for name in SOME:
            one = all_prepared[name]
            end = undisturbed(zygote, one, folder / "work")
            work = _start(folder, one)
            done = zygote.run(one.scenario.command(one.inputs), work, setup=[f"tests.stress.hooks:{hook}"])
            outcome.take(name, done, one.scenario.codes)
            outcome.faults += [f"{name}: {words}" for words in differences(end, tree(work))]
        return outcome

    return row


def _in_the_way(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    """A file where a directory is to be, and the other way round."""
    outcome = Outcome()
    for name in SOME:
        one = all_prepared[name]
        command = one.scenario.command(one.inputs)
        if "out" in command and command[0] in ("embed", "train"):
            target, is_file = "out", True
        else:
            target = command[command.index("--to" if command[0] == "push" else "-o") + 1]
            is_file = command[0] == "push"
        work = _start(folder, one)
        for path in (work / target,):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink(missing_ok=True)
        (work / target).write_text("mine") if is_file else (work / target).mkdir()
        before = dict(below(work))
        done = zygote.run(command, work, setup=one.scenario.setup)
        outcome.take(name, done, [1, 2])
        outcome.faults += [f"{name}: {words}" for words in differences(before, dict(below(work)))]
    return outcome


def _eight(together: bool) -> Row:
    """Eight runs of a command at once, in one directory or in eight."""

    def row(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
        outcome = Outcome()
        with ExitStack() as close:
            zygotes = [close.enter_context(Zygote()) for _ in range(8)]
            pool = close.enter_context(ThreadPoolExecutor(8))
            for name in SOME:
                one = all_prepared[name]
                if together and name.startswith("push"):
                    continue  # one push to a table at a time, its help says
                command = one.scenario.command(one.inputs)
                works = [_start(folder / ("all" if together else str(n)), one) for n in range(1 if together else 8)]
                ends = [undisturbed(zygote, one, work) for work in works]
                for work in works:
                    _start(work.parent, one)
                places = works * 8 if together else works

                def go(pair: tuple[Zygote, Path], command: list[str] = command, one: Prepared = one) -> Done:
                    return pair[0].run(command, pair[1], setup=one.scenario.setup)

                for done in pool.map(go, zip(zygotes, places, strict=True)):
                    # Those that come second are told so; those that come when all is done find nothing to do.
                    wanted = (*one.scenario.codes, 1) if together else one.scenario.codes
                    outcome.take(name, done, wanted, "another run" if "resume" not in done.err else "--resume")
                for work, end in zip(works, ends, strict=True):
                    done, _ = go_on(zygote, work, command, one.scenario)
                    outcome.take(f"{name}, then", done, one.scenario.codes)
                    outcome.codes[str(done.code)] -= 1
                    outcome.faults += [f"{name}: {words}" for words in differences(end, tree(work))]
        return outcome

    return row


def _pipes(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    """Standard output, error and input that are closed, broken or full."""
    outcome = Outcome()
    one = all_prepared["embed npy"]
    model = one.inputs.parent / "toy"
    embed = f"embed {one.inputs / 'songs'} --model {model}"
    cases = [
        # A reader that went away is no news; 3 where all was written before it went.
        (f"poolembed {embed} -q -o - | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", (1, 3), ""),
        (f"poolembed {embed} -q -o - | true; exit ${{PIPESTATUS[0]}}", (1,), ""),
        (f"poolembed {embed} -q -o - >/dev/full", (1,), "No space left"),
        (f"poolembed {embed} -q -o one --json >/dev/full", (1,), "No space left"),
        (f"poolembed {embed} -q -o - >&-", (1, 3), ""),
        (f"poolembed {embed} -o two 2>&-", (1, 3), ""),
        (f"poolembed {embed} -o three 2> >(true); exit $?", (3,), ""),
        (f"poolembed embed - --model {model} -o four <&-", (1,), "closed"),
        (f"poolembed embed - --model {model} -o four </dev/null", (1,), "empty list"),
        ("poolembed --help | true; exit ${PIPESTATUS[0]}", (0, 1), ""),
        ("poolembed models >/dev/full", (1,), "No space left"),
    ]
    folder.mkdir(exist_ok=True)
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for script, codes, says in cases:
        whole = script.replace("poolembed ", f"'{sys.executable}' -m poolembed ", 1)
        ran = subprocess.run(
            ["bash", "-c", whole], cwd=folder, env=variables, capture_output=True, timeout=300, check=False
        )
        done = Done(ran.returncode, 0, False, False, 0, 0.0, 0.0, ran.stdout, ran.stderr.decode("utf-8", "replace"))
        label = script.replace(str(one.inputs.parent), "…")
        outcome.take(label, done, codes, says) if says else outcome.take(label, done, codes, "")
        if done.code == 1 and not says:
            # Nobody is left to read it.
            outcome.faults = [fault for fault in outcome.faults if not fault.startswith(f"{label}: does not say")]
    for name in ("one", "three"):  # what was promised is there all the same
        if not (folder / name / "manifest.jsonl").exists():
            outcome.faults.append(f"{name}: nothing was written")
    return outcome


def _endless(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    """Lists on standard input that never end."""
    outcome = Outcome()
    one = all_prepared["embed npy"]
    for number, block in enumerate((b"no such song.wav\n" * 60000, b"x" * (1 << 20), b"\n" * (1 << 20))):
        if number == 2:
            continue  # empty lines take no memory, and a list that goes on may yet hold a song
        pipe = folder / "pipe"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        (folder / "work").mkdir(exist_ok=True)

        def feed(pipe: Path = pipe, block: bytes = block) -> None:
            with suppress(BrokenPipeError), pipe.open("wb") as file:
                while True:
                    file.write(block)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        command = ["embed", "-", "--model", str(one.inputs.parent / "toy"), "-o", "out"]
        done = zygote.run(command, folder / "work", stdin=str(pipe), limit=120, resources={"AS": 8 << 30})
        outcome.take("a list" if number == 0 else "a line", done, [1])
    return outcome


def _hanging(zygote: Zygote, folder: Path, all_prepared: dict[str, Prepared], count: int) -> Outcome:
    """A decoder that never comes back, faked, costs its song alone."""
    outcome = Outcome()
    import soundfile

    for name in (name for name in CHANGED if name in all_prepared):
        one = all_prepared[name]
        work = _start(folder, one)
        inputs = folder / "inputs"
        shutil.rmtree(inputs, ignore_errors=True)
        shutil.copytree(one.inputs / "songs", inputs / "songs")
        shutil.copytree(one.inputs.parent / "toy", folder / "toy", dirs_exist_ok=True)
        soundfile.write(inputs / "songs" / "hang.wav", noise(9000, 5), RATE)
        command = [word for word in one.scenario.command(inputs) if word != "-q"]
        hook = ["tests.stress.hooks:hanging_decoder"]
        done = zygote.run([*command, "--song-timeout", "2"], work, setup=hook, limit=120)
        outcome.take(name, done, [3])
        if "hang.wav: " not in done.err:
            outcome.faults.append(f"{name}: the song is not named: {done.err[-300:]}")
        outcome.take(f"{name}, then", zygote.run(command, work), [3])  # the decoder is well again
        fresh = folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        zygote.run(command, fresh)
        there, expected = _embeddings(work / "out", name), _embeddings(fresh / "out", name)
        outcome.faults += [
            f"{name}: {key} is not as it should be" for key in expected if there.get(key) != expected[key]
        ]
    return outcome


ROWS: dict[str, Row] = {
    "disk full from some call on": failing(errno.ENOSPC, True),
    "one call fails for want of space": failing(errno.ENOSPC, False),
    "quota reached from some call on": failing(errno.EDQUOT, True),
    "input/output error from some call on": failing(errno.EIO, True),
    "a disk of 16, 40, 64 kB": _small_disk,
    "files of 1, 2, 5 kB at most": _limited("FSIZE", (1000, 2000, 5000), f"File too large|{SHORT}"),
    "read-only directory": _read_only,
    "12, 20, 32 open files": _limited("NOFILE", (12, 20, 32)),
    "6 open files": _limited("NOFILE", (6,), names=EMBEDS),
    "100 and 400 MB of addresses more": _limited("AS", (100 << 20, 400 << 20), names=EMBEDS),
    "SIGINT": _interrupted(signal.SIGINT),
    "SIGTERM": _interrupted(signal.SIGTERM),
    "SIGHUP": _interrupted(signal.SIGHUP),
    "songs change after they are listed": _changing("after_listing"),
    "songs change after they are looked at": _changing("after_planning"),
    "output removed midway": _removed,
    "a file in the place of a directory, or the reverse": _in_the_way,
    "eight at once, one directory": _eight(True),
    "eight at once, eight directories": _eight(False),
    "the clock jumps": _clock("clock_jumps"),
    "the clock stands": _clock("clock_stands"),
    "pipes closed, broken, full": _pipes,
    "endless lists": _endless,
    "a decoder that hangs": _hanging,
}


def main() -> None:
    chosen, work = options("conditions", 0, 100)
    about = machine()
    for left in work.glob("job*/work"):
        if left.is_mount():  # this was stopped while a small disk was there
            subprocess.run(["umount", left], check=True)
    toy(work)
    remembered = Remembered(work / "done.jsonl")
    with Zygote(training=True) as zygote:
        prepared = {one.name: prepare(zygote, work, one) for one in scenarios()}

    def row(zygote: Zygote, folder: Path, name: str) -> Any:
        outcome = ROWS[name](zygote, folder, prepared, chosen.count)
        for fault in outcome.faults:
            say(f"fault: {name}: {fault}")
        return vars(outcome)

    side_by_side(list(ROWS), str, row, remembered, work, chosen.jobs)
    table = Table("Conditions", ["condition", "runs", "exit codes", "faults", "memory"])
    kinds: Counter[str] = Counter()
    for name in ROWS:
        outcome = Outcome(**remembered.results[name])
        codes = {code: number for code, number in sorted(outcome.codes.items()) if number}
        words = ", ".join(f"{code}: {number}" for code, number in codes.items())
        known = megabytes(outcome.peak) if outcome.peak else ""
        table.add(name, sum(codes.values()), outcome.skipped or words, len(outcome.faults), known)
        kinds.update(f"{name}: {fault}" for fault in outcome.faults)
    report(
        "conditions",
        "Conditions",
        "conditions",
        about,
        [table, "Memory is the most that was resident in one run, libraries included."],
        {"seed": chosen.seed, "faults": dict(kinds)},
        package="stress",
    )
    raise SystemExit(1 if kinds else 0)


if __name__ == "__main__":
    main()
