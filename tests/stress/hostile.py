"""Files that are read, other than audio, damaged in every way: no traceback, hang or flood, nothing written elsewhere.

    python -m tests.stress.hostile [--trials 4000] [--seed 0] [--only manifest] [--number 7] [--table FILE]

Makes one healthy file of each kind that poolembed reads, and then, trial by trial, damages one and runs the command
that reads it, in a process forked from one that has everything imported. A trial is right if the command ends by itself
with exit code 0, 1, 2 or 3, prints no traceback, stays below a bound of memory, and changes nothing outside the folder
that it was given. Everything follows from the seed: trial n is the same in every run. Linux only.

A pipe in the place of a list of paths is none of the damages: it is waited for, as ``<(find …)`` has to be. The table
is ``tests/benchmarks/results/hostile.md``. Exit code 1 if any trial went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 3 << 29
"""Bytes that may be resident of a command, libraries included, which are a third of it."""

ROOM = 4 << 30
"""Bytes of address space that a command may take besides; beyond it the system refuses, so that a flood cannot take the
machine with it."""

PATIENCE = 60.0
"""Seconds after which a command hangs; the slowest takes three on an idle machine."""

KEPT = 300  # characters of the last line of what went wrong

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "hostile.md"

Damage = Callable[[random.Random, Path, Path], str]
"""Damages the file at the second argument, in a sandbox at the third; returns what it did."""

EVIL: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2.5, 10**9, 10**18, 2**63, 10**400, float("nan"), float("inf"), -0.0, 1e308,
    "", "0", ".", "..", "../../evil", "OUTSIDE/evil", "OUTSIDE/sentinel", "a/../../evil", "nul\0nul", "\ud800",
    "\udcff", "line\nline", "x" * 5000, "a//b", "./a", ".poolembed/x", "manifest.jsonl", "npy", "float32", "ok",
    "failed", [], [1], [1, 2], [-1, -1], [1, 2, 3], [10**18, 10**18], ["a", "b"], {}, {"a": 1}, [[[[]]]], 1e-320,
)  # fmt: skip
"""Values to put in a field, whatever belongs there. OUTSIDE is the folder that nothing may be written to."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: for the table.
        folder: what of the healthy files is copied for a trial.
        file: the one to damage, below it.
        commands: each reads it; one is drawn for each trial. FOLDER is replaced.
        damages: ways that fit this kind, besides those that fit all.
    """

    name: str
    folder: str
    file: str
    commands: tuple[tuple[str, ...], ...]
    damages: tuple[Damage, ...] = ()


# Ways to damage any file


def cut(draw: random.Random, file: Path, sandbox: Path) -> str:
    data = file.read_bytes()
    at = draw.randrange(len(data) + 1)
    file.write_bytes(data[:at])
    return f"cut at {at}"


def flip(draw: random.Random, file: Path, sandbox: Path) -> str:
    data = bytearray(file.read_bytes())
    places = [draw.randrange(len(data)) for _ in range(draw.choice([1, 1, 2, 8]))]
    for place in places:
        data[place] ^= 1 << draw.randrange(8)
    file.write_bytes(data)
    return f"bits flipped at {places}"


def overwrite(draw: random.Random, file: Path, sandbox: Path) -> str:
    data = bytearray(file.read_bytes())
    at, length = draw.randrange(len(data)), draw.choice([1, 4, 8, 64])
    what = draw.choice([b"\0", b"\xff", b"\x7f", b" ", b"[", b"9"])
    data[at : at + length] = what * length
    file.write_bytes(data)
    return f"{length} times {what!r} at {at}"


def insert(draw: random.Random, file: Path, sandbox: Path) -> str:
    data = file.read_bytes()
    at = draw.randrange(len(data) + 1)
    what = draw.choice([b"\0", b"\xff\xfe", b"\n", b"\r", b"\n\n{}\n", b'"', b"[" * 100_000, draw.randbytes(8)])
    file.write_bytes(data[:at] + what + data[at:])
    return f"{what[:8]!r} put in at {at}"


def replace_all(draw: random.Random, file: Path, sandbox: Path) -> str:
    contents = {
        "nothing": b"", "zeros": bytes(4096), "random bytes": draw.randbytes(4096), "spaces": b" " * 50_000_000,
        "brackets": b"[" * 1_000_000, "objects": b'{"a":' * 200_000, "lines": b"\n" * 100_000, "null": b"null\n",
        "a number": b"1\n", "a list": b"[]\n", "text": b'"text"\n', "an object": b"{}\n",
        "a long number": b"9" * 100_000, "UTF-16": "{}".encode("utf-16"),
    }  # fmt: skip
    name = draw.choice(list(contents))
    file.write_bytes(contents[name])
    return f"replaced by {name}"


def twice(draw: random.Random, file: Path, sandbox: Path) -> str:
    file.write_bytes(file.read_bytes() * 2)
    return "twice over"


def another_thing(draw: random.Random, file: Path, sandbox: Path) -> str:
    pipes = [] if file.suffix == ".txt" else ["pipe"]
    things = ["directory", *pipes, "endless device", "link to nothing", "link to itself"]
    name = draw.choice([*things, *(["not readable"] if os.geteuid() else [])])  # root reads all the same
    if name == "not readable":
        file.chmod(0)
        return name
    file.unlink()
    if name == "directory":
        file.mkdir()
    elif name == "pipe":
        os.mkfifo(file)
    else:
        targets = {"endless device": "/dev/zero", "link to nothing": "/nowhere/at/all", "link to itself": file.name}
        file.symlink_to(targets[name])
    return f"a {name} in its place"


ANY: tuple[Damage, ...] = (cut, flip, flip, overwrite, overwrite, insert, replace_all, twice, another_thing)


# Ways to damage what has a structure


def _evil(draw: random.Random, sandbox: Path) -> Any:
    value = draw.choice(EVIL)
    return value.replace("OUTSIDE", str(sandbox / "outside")) if isinstance(value, str) else value


def _spoil(draw: random.Random, value: Any, sandbox: Path) -> tuple[Any, str]:
    """A value with something wrong at a random place in it, and what."""
    if isinstance(value, dict) and value and draw.random() < 0.95:
        key = draw.choice(list(value))
        what = draw.random()
        if what < 0.1:
            return {name: each for name, each in value.items() if name != key}, f"without {key}"
        if what < 0.15:
            return {**value, "unknown": _evil(draw, sandbox)}, "a key more"
        spoilt, how = _spoil(draw, value[key], sandbox)
        return {**value, key: spoilt}, f"{key}: {how}"
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        if draw.random() < 0.2:
            return [*value[:place], *value[place + 1 :]], f"without [{place}]"
        spoilt, how = _spoil(draw, value[place], sandbox)
        return [*value[:place], spoilt, *value[place + 1 :]], f"[{place}]: {how}"
    evil = _evil(draw, sandbox)
    return evil, repr(evil)[:80]


def a_line(draw: random.Random, file: Path, sandbox: Path) -> str:
    """One line of JSON Lines with something wrong in it; or lines twice, swapped or gone."""
    lines = file.read_bytes().splitlines()
    number = draw.randrange(len(lines))
    what = draw.random()
    if what < 0.05:
        lines.append(lines[number])
        how = "again at the end"
    elif what < 0.1:
        other = draw.randrange(len(lines))
        lines[number], lines[other] = lines[other], lines[number]
        how = f"swapped with {other + 1}"
    elif what < 0.15:
        del lines[number]
        how = "gone"
    else:
        spoilt, how = _spoil(draw, json.loads(lines[number]), sandbox)
        lines[number] = json.dumps(spoilt).encode()
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return f"line {number + 1}: {how}"


def a_value(draw: random.Random, file: Path, sandbox: Path) -> str:
    """A JSON file with something wrong in it."""
    spoilt, how = _spoil(draw, json.loads(file.read_bytes()), sandbox)
    file.write_bytes(json.dumps(spoilt).encode())
    return how


def a_setting(draw: random.Random, file: Path, sandbox: Path) -> str:
    """A TOML file with something wrong in it."""
    import tomllib

    import tomli_w

    while True:
        spoilt, how = _spoil(draw, tomllib.loads(file.read_text()), sandbox)
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            file.write_bytes(tomli_w.dumps(spoilt).encode())
            return how


def a_cell(draw: random.Random, file: Path, sandbox: Path) -> str:
    """A table of text with something wrong in a cell, or with cells too many or too few."""
    delimiter = "\t" if file.suffix == ".tsv" else ","
    rows = [line.split(delimiter) for line in file.read_text().splitlines()]
    row = draw.choice(rows)
    place = draw.randrange(len(row))
    evil = draw.choice([str(_evil(draw, sandbox)), '"', '""', "'", delimiter, "=1+1", "1e999", "nan", "-1", "\r"])
    row[place] = evil
    text = "".join(delimiter.join(cells) + "\n" for cells in rows)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"a cell is {evil[:40]!r}"


def an_array(draw: random.Random, file: Path, sandbox: Path) -> str:
    """An ``.npy`` file with another header, or other numbers."""
    import numpy as np

    shapes = ["(10**18, 0)", "(0, 10**18)", "(10**18,)", "(10**9, 10**9)", "(-1, 8)", "(6,)", "()", "(6, 8, 1)",
              "(0,)", "(0, 8)", "(6, 0)", "(True, 8)", "(6.0, 8)", "('6', 8)", "(6, 8)", "(99999, 8)",
              "(2**63, 8)"]  # fmt: skip
    descriptions = ["'<f4'", "'>f4'", "'|O'", "'<f2'", "'<f8'", "'<i8'", "'<c8'", "'|b1'", "'<U8'", "'|S4'",
                    "'<M8[s]'",                     "[('a', '<f4')]", "'|V4'",
                    "'|V0'", "'nonsense'", "None", "'<U0'", "'<f16'"]  # fmt: skip
    if draw.random() < 0.2:
        values = np.load(file)
        values.reshape(-1)[draw.randrange(values.size)] = draw.choice([np.nan, np.inf, 0.0, 3e38])
        if draw.random() < 0.3:
            values[...] = 0
        np.save(file, values)
        return "other numbers"
    shape, description = draw.choice(shapes), draw.choice(["'<f4'", *descriptions])
    shape = str(eval(shape)) if "**" in shape else shape
    order = draw.choice(["False", "True", "1", "None"])
    head = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    version = draw.choice([(1, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 0)])
    length = draw.choice([len(head), len(head), len(head), 0, 60_000, len(head) - 1])
    if version[0] > 1:
        length = draw.choice([length, length, 2**31])
    packed = struct.pack("<H" if version[0] < 2 else "<I", length)
    body = file.read_bytes()[128:]
    file.write_bytes(b"\x93NUMPY" + bytes(version) + packed + head.encode() + body)
    return f"version {version}, {head.strip()}, {length} bytes of it"


def tensors(draw: random.Random, file: Path, sandbox: Path) -> str:
    """A safetensors file with another header, or other numbers."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    if draw.random() < 0.2:
        length = draw.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
        file.write_bytes(struct.pack("<Q", length) + data[8:])
        return f"a header of {length} bytes"
    if draw.random() < 0.3:
        body = bytearray(data)
        at = draw.randrange(8 + length, len(data) - 4) // 4 * 4
        body[at : at + 4] = draw.choice([struct.pack("<f", value) for value in (float("nan"), float("inf"), 3e38)])
        file.write_bytes(body)
        return f"another number at {at}"
    spoilt, how = _spoil(draw, json.loads(data[8 : 8 + length]), sandbox)
    head = json.dumps(spoilt).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    return how


def a_bundle(damage: Damage) -> Damage:
    """The same, with a config that has the right hash of it: only the contents are wrong."""

    def damaged(draw: random.Random, file: Path, sandbox: Path) -> str:
        import hashlib

        how = damage(draw, file, sandbox)
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 24:
            config = file.with_name("config.json")
            value = json.loads(config.read_bytes())
            key = "weights_sha256" if file.name.startswith("model") else "heads_sha256"
            value[key] = hashlib.sha256(file.read_bytes()).hexdigest()
            config.write_bytes(json.dumps(value).encode())
        return f"{how}, its hash right"

    return damaged


def an_index(draw: random.Random, file: Path, sandbox: Path) -> str:
    """An index that says other things of itself and its collection. Its graph stays as it was."""
    data = file.read_bytes()
    length = int.from_bytes(data[-16:-8], "little")
    about, how = _spoil(draw, json.loads(data[-16 - length : -16]), sandbox)
    text = json.dumps(about).encode()
    file.write_bytes(data[: -16 - length] + text + struct.pack("<Q", len(text)) + data[-8:])
    return how


def columns(draw: random.Random, file: Path, sandbox: Path) -> str:
    """A Parquet file with another column, or one less."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as opened:
        table = pq.read_table(opened)
    place = draw.randrange(table.num_columns)
    name, rows = table.column_names[place], table.num_rows
    others = {
        "text": ["x"] * rows, "nothing": [None] * rows, "numbers": list(range(rows)), "lists": [[1.0]] * rows,
        "uneven lists": [[1.0] * (row % 3) for row in range(rows)], "lists of text": [["x"]] * rows,
        "NaN": [float("nan")] * rows, "bytes": [b"\xff\xfe"] * rows, "objects": [{"a": 1}] * rows,
        "lists with nothing": [[None, 1.0]] * rows, "true": [True] * rows, "lists of lists": [[[1.0]]] * rows,
    }  # fmt: skip
    how = draw.choice([*others, "gone", "twice", "no rows"])
    if how == "gone":
        table = table.remove_column(place)
    elif how == "twice":
        table = table.append_column(name, table.column(place))
    elif how == "no rows":
        table = table.slice(0, 0)
    else:
        table = table.set_column(place, name, pa.array(others[how]))
    pq.write_table(table, file)
    return f"column {name}: {how}"


def any_file_of(damages: Sequence[Damage]) -> Damage:
    """One of the files below a folder."""

    def damaged(draw: random.Random, file: Path, sandbox: Path) -> str:
        chosen = draw.choice(sorted(path for path in file.rglob("*") if path.is_file() and path.stat().st_size))
        return f"{chosen.relative_to(file).parts[0]}: {draw.choice(damages)(draw, chosen, sandbox)}"

    return damaged


SEARCH = ("search", "b/1.wav", "--in", "FOLDER", "--format", "jsonl")
EVERY = ("search", "FOLDER", "--all", "--format", "csv")
EMBED = ("embed", "CLIPS", "-o", "FOLDER", "-m", "toy", "-q")


def _kinds() -> list[Kind]:
    kinds = []
    for format in ("npy", "matrix", "jsonl", "parquet"):
        embed = (*EMBED, "--format", format, "--timestamps", "0.5")
        more = (("duplicates", "FOLDER"), ("map", "FOLDER", "-o", "map.html")) if format == "npy" else ()
        # Lines damaged and whole files damaged weigh the same.
        kinds.append(
            Kind(f"manifest ({format})", format, "manifest.jsonl", (embed, SEARCH, EVERY, *more), (a_line,) * 12)
        )
        over = ((*embed, "--overwrite"),)
        kinds.append(Kind(f"manifest ({format}, --overwrite)", format, "manifest.jsonl", over, (a_line,) * 12))
    matrix = (*EMBED, "--format", "matrix", "--timestamps", "0.5", "--overwrite")
    kinds += [
        Kind(".npy of a song", "npy", "b/1.wav.npy", (SEARCH, ("search", "FOLDER/b/1.wav.npy", "--in", "FOLDER")),
             (an_array,) * 9),
        Kind(".npy query", "arrays", "vector.npy", (("search", "FOLDER/vector.npy", "--in", "MATRIX"),),
             (an_array,) * 9),
        Kind(".npy matrix query", "arrays", "many.npy", (("search", "FOLDER/many.npy", "--in", "MATRIX"),),
             (an_array,) * 9),
        Kind(".npy collection", "arrays", "many.npy",
             (("search", "0", "--in", "FOLDER/many.npy", "--paths", "FOLDER/paths.txt"),
              ("search", "FOLDER/many.npy", "--all"), ("duplicates", "FOLDER/many.npy")), (an_array,) * 9),
        Kind("embeddings.npy", "matrix", "embeddings.npy", (SEARCH, matrix[:-1], matrix), (an_array,) * 9),
        Kind("timestamps.npy", "matrix", "timestamps.npy", (matrix[:-1],), (an_array,) * 9),
        Kind("rows of a table", "rows", ".poolembed/rows/embeddings.npy",
             ((*EMBED, "--format", "parquet"),), (an_array,) * 9),
        Kind("paths list", "arrays", "paths.txt",
             (("search", "a/0.wav", "--in", "FOLDER/many.npy", "--paths", "FOLDER/paths.txt"),
              ("embed", "--files-from", "FOLDER/paths.txt", "-o", "out", "-m", "toy", "-q"))),
        Kind("config.json", "bundle", "config.json", (("embed", "CLIPS", "-o", "out", "-q", "-m", "FOLDER"),
             ("predict", "CLIPS", "-m", "FOLDER")), (a_value,) * 12),
        Kind("config.json (models)", "models", "toy/config.json", (("models", "--json"), ("models",)), (a_value,) * 12),
        Kind("card", "bundle", "README.md", (("predict", "CLIPS", "-m", "FOLDER"),)),
        Kind("table of vectors (.jsonl)", "jsonl", "embeddings.jsonl",
             (("search", "FOLDER/embeddings.jsonl", "--all"), SEARCH,
              (*EMBED, "--format", "jsonl", "--timestamps", "0.5"),
              ("evaluate", "--embeddings", "FOLDER/embeddings.jsonl", "LABELS")), (a_line,) * 9),
        Kind("table of vectors (.parquet)", "parquet", "embeddings.parquet",
             (("search", "FOLDER/embeddings.parquet", "--all"), SEARCH,
              (*EMBED, "--format", "parquet", "--timestamps", "0.5")), (columns,) * 9),
        Kind("Lance table", "lance", ".", (("search", "b/1.wav", "--in", "FOLDER/t.lance"),
             ("push", "MATRIX", "--to", "FOLDER/t.lance")), (any_file_of(ANY),)),
        Kind("index", "index", "i.index", (("search", "b/1.wav", "--in", "FOLDER/i.index"),
             ("search", "FOLDER/i.index", "--all"), ("index", "MATRIX", "-o", "FOLDER/i.index")), (an_index,) * 9),
        Kind("run.toml", "run", "run.toml", (("train", "--resume", "FOLDER", "-q"),), (a_setting,) * 9),
        Kind("--config", "run", "run.toml", (("train", "--config", "FOLDER/run.toml", "-o", "out", "--epochs", "1",
             "-q", "--cache", "cache"),), (a_setting,) * 9),
        Kind("checkpoint", "run", "checkpoint.safetensors", (("train", "--resume", "FOLDER", "-q"),), (tensors,) * 9),
        Kind("history.jsonl", "run", "history.jsonl", (("train", "--resume", "FOLDER", "-q"),), (a_line,) * 9),
        Kind("log-mel cache", "run", "cache", (("train", "--resume", "FOLDER", "-q"),), (any_file_of((*ANY, a_mel)),)),
        Kind("results.json", "done", "results.json", (("train", "--resume", "FOLDER", "--json", "-q"),),
             (a_value,) * 9),
        Kind("run.toml beside a model", "done", "run.toml", (("evaluate", "FOLDER", "LABELS"),), (a_setting,) * 9),
    ]  # fmt: skip
    for file in ("model.safetensors", "heads.safetensors"):
        damages = tuple(a_bundle(each) for each in (*ANY, *[tensors] * 12))
        kinds.append(Kind(file, "bundle", file, (("predict", "CLIPS/b/1.wav", "-m", "FOLDER"),), damages))
    for suffix, damage in (("csv", a_cell), ("tsv", a_cell), ("jsonl", a_line), ("parquet", columns)):
        command = ("evaluate", "--embeddings", "MATRIX", f"FOLDER/labels.{suffix}")
        train = ("train", f"FOLDER/labels.{suffix}", "-o", "out", "--epochs", "1", "--init", "toy", "-q")
        kinds.append(
            Kind(f"labels (.{suffix})", "labels", f"labels.{suffix}", (command, command, train), (damage,) * 9)
        )
    return kinds


def a_mel(draw: random.Random, file: Path, sandbox: Path) -> str:
    return (a_line if file.suffix == ".jsonl" else flip)(draw, file, sandbox)


# The healthy files


def build(root: Path) -> None:
    """Write one healthy file of each kind below `root`."""
    import threading

    import numpy as np
    import soundfile

    from poolembed.embed.manifest import read_manifest
    from poolembed.train.configfile import read_settings
    from tests.conftest import RATE, noise, tiny_config, tiny_heads, tiny_network

    os.environ["POOLEMBED_MODELS"] = str(root / "models")
    rows = []
    for number in range(10):
        name = f"{'ab'[number % 2]}/{number}.wav"
        (root / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "clips" / name, noise(6000 + 400 * number, number), RATE)
        rows.append((str(root / "clips" / name), "ab"[number % 2]))
    from poolembed.bundle import save_bundle

    for folder in ("models/toy", "bundle"):
        save_bundle(root / folder, tiny_network(tiny_config()), name="toy", license="CC0-1.0", card="**Toy.**\n",
                    heads=tiny_heads(), nested=(2, 4))  # fmt: skip
    for format in ("npy", "matrix", "jsonl", "parquet"):
        _run("embed", str(root / "clips"), "-o", str(root / format), "-m", "toy", "-q", "--format", format,
             "--timestamps", "0.5")  # fmt: skip
    _run("embed", str(root / "clips"), "-o", str(root / "rows"), "-m", "toy", "-q", "--format", "parquet")
    (root / "rows" / ".poolembed" / "rows" / "exported").unlink()  # as a killed run leaves them
    (root / "arrays").mkdir()
    matrix = np.load(root / "matrix" / "embeddings.npy")
    np.save(root / "arrays" / "many.npy", matrix)
    np.save(root / "arrays" / "vector.npy", matrix[0])
    keys = list(read_manifest(root / "matrix" / "manifest.jsonl").records)
    (root / "arrays" / "paths.txt").write_text("".join(f"{root}/clips/{key}\n" for key in keys))
    with contextlib.suppress(ImportError):
        import usearch  # noqa: F401

        (root / "index").mkdir()
        _run("index", str(root / "matrix"), "-o", str(root / "index" / "i.index"))
    with contextlib.suppress(ImportError):
        import lance  # noqa: F401

        (root / "lance").mkdir()
        _run("push", str(root / "matrix"), "--to", str(root / "lance" / "t.lance"))
    _labels(root / "labels", rows)
    settings = root / "settings.toml"
    settings.write_text('init = "toy"\nepochs = 2\nbatch_size = 4\nworkers = 1\n')
    assert read_settings(settings)
    _run("train", str(root / "labels" / "labels.csv"), "-o", str(root / "done"), "--config", str(settings), "-q")
    _interrupted(root, threading.Event())


def _run(*arguments: str) -> None:
    from poolembed.cli.app import app

    try:
        app(list(arguments), standalone_mode=False)
    except SystemExit as end:
        assert not end.code, arguments


def _labels(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    table = [{"path": path, "label": label, "start": 0.0, "end": 0.5, "fold": str(at % 3), "group": str(at), "split":
              "train" if at < 7 else "valid"} for at, (path, label) in enumerate(rows)]  # fmt: skip
    names = list(table[0])
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        lines = [names, *([str(row[name]) for name in names] for row in table)]
        (folder / f"labels.{suffix}").write_text("".join(delimiter.join(line) + "\n" for line in lines))
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    pq.write_table(pa.Table.from_pylist(table), folder / "labels.parquet")


def _interrupted(root: Path, stop: Any) -> None:
    """A run that was stopped in its second epoch, with a checkpoint and everything."""
    import msgspec

    from poolembed.train.configfile import read_config
    from poolembed.train.run import train

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        if stage == "training" and done == 2:
            stop.set()

    config = msgspec.structs.replace(read_config(root / "done" / "run.toml"), output=str(root / "run"))
    assert not train(config, progress, stop=stop).finished


# Trials


@dataclass(frozen=True)
class Verdict:
    """What came of a trial; `wrong` is None if all was well."""

    kind: str
    code: int | None
    wrong: str | None
    how: str
    command: str
    memory: int
    seconds: float
    said: str


def attempt(kind: Kind, number: int, seed: int, healthy: Path, sandbox: Path, patience: float = PATIENCE) -> Verdict:
    """One trial, in a new `sandbox`."""
    draw = random.Random(f"{seed} {kind.name} {number}")
    inside, outside = sandbox / "inside", sandbox / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (outside / "sentinel").write_bytes(b"untouched")
    shutil.copy(healthy / "npy" / "a" / "0.wav.npy", outside / "evil.npy")
    shutil.copytree(healthy / kind.folder, inside / "it", symlinks=True)
    command = [
        part.replace("FOLDER", str(inside / "it")).replace("MATRIX", str(healthy / "matrix"))
        .replace("CLIPS", str(healthy / "clips")).replace("LABELS", str(healthy / "labels" / "labels.csv"))
        for part in draw.choice(kind.commands)
    ]  # fmt: skip
    if kind.name == "config.json (models)":
        os.environ["POOLEMBED_MODELS"] = str(inside / "it")
    own = kind.damages if kind.file in (".", "cache") or "safetensors" in kind.name else (*ANY, *kind.damages)
    how = draw.choice(own or ANY)(draw, inside / "it" / kind.file, sandbox)
    before = _listing(sandbox, inside)
    began = time.monotonic()
    code, said, memory = _forked(command, inside, patience)
    seconds = time.monotonic() - began
    os.environ["POOLEMBED_MODELS"] = str(healthy / "models")
    wrong = None
    if code is None:
        wrong = "hangs"
    elif code < 0:
        wrong = f"ended by {signal.Signals(-code).name}"
    elif code not in (0, 1, 2, 3):
        wrong = f"exit code {code}"
    elif "Traceback" in said or "Exception ignored" in said or "Warning:" in said:
        wrong = "traceback"
    elif code in (1, 2) and not said.strip():
        wrong = "says nothing"
    elif memory > MEMORY:
        wrong = f"takes {memory >> 20} MiB"
    elif _listing(sandbox, inside) != before:
        wrong = "writes outside"
    shown = " ".join(command).replace(str(inside), "").replace(str(healthy), "")
    return Verdict(kind.name, code, wrong, how, shown, memory, seconds, said)


def _listing(sandbox: Path, inside: Path) -> list[tuple[str, int, int, int]]:
    """What there is outside, with times and inodes."""
    found = []
    for top, _, names in os.walk(sandbox):
        if not Path(top).is_relative_to(inside):
            for name in [".", *names]:
                status = (Path(top) / name).lstat()
                size = status.st_size if name != "." else 0
                found.append((f"{top}/{name}", status.st_ino, size, status.st_mtime_ns))
    return sorted(found)


def _forked(command: list[str], inside: Path, patience: float) -> tuple[int | None, str, int]:
    """Run a command in a process forked from this one: exit code (None: hangs), stderr, most memory."""
    child = os.fork()
    if not child:
        _be_a_command(command, inside)
    deadline = time.monotonic() + patience
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return None, "", 0
        time.sleep(0.005)
    said = (inside / "stderr").read_text("utf-8", "replace")
    return os.waitstatus_to_exitcode(status), said, usage.ru_maxrss << 10


def _be_a_command(command: list[str], inside: Path) -> None:
    """In a forked process: run a command, and end with its exit code. Never returns."""
    code: Any = 99
    try:
        os.chdir(inside)
        for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
        for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            mode = "r" if name == "stdin" else "w"
            setattr(
                sys, name, io.TextIOWrapper(os.fdopen(number, mode + "b", buffering=0), "utf-8", write_through=True)
            )
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        sys.argv = ["poolembed", *command]
        from poolembed.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                sys.stderr.write(code)
                code = 1
    except BaseException:  # noqa: BLE001 - reported, as Python would
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)


def main() -> None:
    """Build, try, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000, help="in all, dealt out evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds after which a command hangs")
    parser.add_argument("--number", type=int, help="this trial of each kind alone, and what it says")
    parser.add_argument("--table", type=Path, help=f"write the table there, for example {TABLE.name}")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["COLUMNS"] = "200"
    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="hostile-"))
    root.chmod(0o755)
    healthy = root / "healthy"
    try:
        builder = os.fork()
        if not builder:
            status = 1
            try:
                build(healthy)
                status = 0
            except BaseException:  # noqa: BLE001 - reported
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(builder, 0)[1]):
            sys.exit("the healthy files could not be made")
        os.environ["POOLEMBED_MODELS"] = str(healthy / "models")
        _import_everything()
        kinds = [kind for kind in _kinds() if options.only in kind.name and (healthy / kind.folder).exists()]
        verdicts = []
        each = -(-options.trials // max(len(kinds), 1))
        for kind in kinds:
            for number in range(each) if options.number is None else [options.number]:
                sandbox = root / "sandbox"
                verdict = attempt(kind, number, options.seed, healthy, sandbox, options.patience)
                verdicts.append(verdict)
                if verdict.wrong:
                    last = verdict.said.strip().splitlines()[-1:] or [""]
                    print(f"WRONG {kind.name} {number}: {verdict.wrong}: {verdict.how}: {verdict.command}\n"
                          f"      {last[0][:KEPT]}", flush=True)  # fmt: skip
                if options.number is not None:
                    print(f"{verdict.how}: {verdict.command}: {verdict.code}\n{verdict.said}", flush=True)
                _remove(sandbox)
        text = table(verdicts, options.seed)
        print(text)
        if options.table:
            options.table.write_text(text)
        sys.exit(any(verdict.wrong for verdict in verdicts))
    finally:
        _remove(root)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _import_everything() -> None:
    """What commands import, so that forked processes need not."""
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model
    import sklearn.manifold  # noqa: F401
    import torch._dynamo  # noqa: F401

    import poolembed.cli.listing
    import poolembed.cli.report
    import poolembed.cli.training
    import poolembed.embed.predict
    import poolembed.evaluate.run
    import poolembed.map.make
    import poolembed.search.songs
    import poolembed.train.run  # noqa: F401


def table(verdicts: Sequence[Verdict], seed: int) -> str:
    """Markdown: a line per kind."""
    by_kind = defaultdict(list)
    for verdict in verdicts:
        by_kind[verdict.kind].append(verdict)
    lines = [
        f"`python -m tests.stress.hostile --trials {len(verdicts)} --seed {seed}`: damaged files, and what the command "
        "that reads them made of it. Memory is the most that was resident, libraries included.\n",
        "| file | tried | read all the same | clear error | wrong | most memory | slowest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, some in [*by_kind.items(), ("**all**", list(verdicts))]:
        codes = Counter(verdict.code for verdict in some if not verdict.wrong)
        wrong = Counter(verdict.wrong for verdict in some if verdict.wrong)
        words = "; ".join(f"{count} {what}" for what, count in wrong.most_common()) if name != "**all**" else ""
        failed = f"{sum(wrong.values())}{f' ({words})' if words else ''}"
        lines.append(
            f"| {name} | {len(some)} | {codes[0]} | {codes[1] + codes[2] + codes[3]} | {failed} | "
            f"{max(0, *(verdict.memory for verdict in some)) / 2**20:.0f} MiB | "
            f"{max(verdict.seconds for verdict in some):.1f} s |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
