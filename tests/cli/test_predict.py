"""``poolembed predict``: labels on standard output, everything else on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from poolembed.bundle import load_bundle
from poolembed.embed.predict import load_predictor
from poolembed.nn.config import HeadConfig
from poolembed.nn.head import build_head
from tests.cli.conftest import BAD, GOOD, Cli
from tests.conftest import HOP, RATE, noise, tiny_config, tiny_heads

FINEST = 4 * HOP / RATE


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    """A model with a head on the embedding, ``sound``, and one on frames, ``place``."""
    return save_tiny(tmp_path_factory.mktemp("trained"), "both", heads=tiny_heads())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    """A model with ``sound`` alone."""
    return save_tiny(tmp_path_factory.mktemp("trained"), "one", heads=tiny_heads()[:1])


def expected(model: Path, path: Path) -> dict[str, dict[str, float]]:
    """Column -> label -> probability."""
    predictor = load_predictor(model)
    (found,) = predictor.predict([str(path)])
    columns: dict[str, Any] = found.probabilities  # type: ignore[union-attr]
    return {head.column: dict(zip(head.labels, columns[head.column].tolist(), strict=True)) for head in predictor.heads}


def rows(done: Any) -> list[list[str]]:
    return [line.split("\t") for line in done.out.decode().splitlines()]


def test_one_line_a_song(cli: Cli, songs: Path, one: Path) -> None:
    done = cli("predict", songs / "a.wav", songs / "b.flac", "-m", one)
    assert done.code == 0
    assert done.err == ""
    assert [row[0] for row in rows(done)] == [str(songs / "a.wav"), str(songs / "b.flac")]
    for row in rows(done):
        labels = sorted(expected(one, Path(row[0]))["sound"].items(), key=lambda item: -item[1])
        assert row[1:] == [f"{label} {p:.3f}" for label, p in labels]


def test_a_directory_with_broken_files(cli: Cli, songs: Path, one: Path) -> None:
    done = cli("predict", songs, "--model", one, "--top", "1")
    assert done.code == 3
    assert sorted(row[0] for row in rows(done)) == sorted(str(songs / name) for name in GOOD)
    assert all(len(row) == 2 for row in rows(done))
    for name in BAD:
        assert f"{songs / name}: " in done.err
    assert len(done.err.splitlines()) == len(BAD)


def test_several_heads_are_told_apart(cli: Cli, songs: Path, both: Path) -> None:
    done = cli("predict", songs / "a.wav", "-m", both)
    assert [row[1] for row in rows(done)] == ["sound", "place"]
    assert [len(row) for row in rows(done)] == [2 + 3, 2 + 2]
    done = cli("predict", songs / "a.wav", "-m", both, "--head", "place")
    ((_, *labels),) = rows(done)
    assert [label.split()[0] for label in labels] in (["in", "out"], ["out", "in"])


def test_json(cli: Cli, songs: Path, both: Path) -> None:
    paths = songs / "a.wav", songs / "sub" / "a.wav"
    done = cli("predict", *paths, "-m", both, "--json", "--top", "2")
    assert done.code == 0
    for together, path in zip(done.lines, paths, strict=True):
        # By itself, as it is expected: of so few bands MKL's products for two songs differ in the last bit.
        (line,) = cli("predict", path, "-m", both, "--json", "--top", "2").lines
        assert together["path"] == line["path"]
        assert line["path"] == str(path)
        assert line["duration"] == pytest.approx(soundfile.info(path).duration)
        assert list(line["labels"]) == ["sound", "place"]
        for column, labels in expected(both, path).items():
            found = line["labels"][column]
            assert len(found) == 2
            assert [each["probability"] for each in found] == sorted(labels.values(), reverse=True)[:2]
            assert all(labels[each["label"]] == each["probability"] for each in found)
        assert "timestamps" not in line


def test_stretches_of_a_head_on_the_embedding(cli: Cli, songs: Path, one: Path) -> None:
    done = cli("predict", songs / "d.mp3", "-m", one, "--timestamps", "0.5", "--top", "1")
    whole, *stretches = rows(done)
    assert len(whole) == 2
    seconds = soundfile.info(songs / "d.mp3").duration
    starts = np.arange(0, seconds - FINEST, 0.5)
    assert len(stretches) in (len(starts), len(starts) + 1)
    for row, start in zip(stretches, starts, strict=False):
        assert row[:2] == [whole[0], f"{start:.2f}-{min(start + 0.5, seconds):.2f}"]
        assert len(row) == 3
    (line,) = cli("predict", songs / "d.mp3", "-m", one, "--timestamps", "0.5", "--json").lines
    times = [(each["start"], each["end"]) for each in line["timestamps"]["sound"]]
    assert [f"{start:.2f}-{end:.2f}" for start, end in times] == [row[1] for row in stretches]
    assert all(len(each["labels"]) == 3 for each in line["timestamps"]["sound"])


def test_from_when_to_when_of_a_head_on_frames(cli: Cli, tmp_path: Path, both: Path) -> None:
    """Thresholds between the least and the largest probability cut the song; one above all leaves the song's line."""
    soundfile.write(tmp_path / "a.wav", noise(60_000), RATE)
    predictor = load_predictor(both, columns=["place"])
    (found,) = predictor.predict([str(tmp_path / "a.wav")], seconds=FINEST)
    heard = found.timelines["place"].probabilities  # type: ignore[union-attr]
    threshold = f"{np.median(heard):.4f}"
    command = ["predict", tmp_path / "a.wav", "-m", both, "--head", "place", "--timestamps", str(FINEST)]
    whole, *lines = rows(cli(*command, "--threshold", threshold))
    assert len(whole) == 3
    covered = {"in": 0.0, "out": 0.0}
    for path, when, label in lines:
        assert path == whole[0]
        start, end = map(float, when.split("-"))
        covered[label.split()[0]] += end - start
        assert float(label.split()[1]) >= float(threshold) - 5e-4
    for column, name in enumerate(covered):
        assert covered[name] == pytest.approx((heard[:, column] >= float(threshold)).sum() * FINEST, abs=0.05)
    assert 0 < sum(covered.values()) < 2 * 60_000 / RATE
    (line,) = cli(*command, "--threshold", threshold, "--json").lines
    assert [each["labels"][0]["label"] for each in line["timestamps"]["place"]] == [row[2].split()[0] for row in lines]
    assert len(rows(cli(*command, "--threshold", "1"))) == 1


def test_odd_names_and_labels_stay_on_one_line(cli: Cli, tmp_path: Path, save_tiny: Callable[..., Path]) -> None:
    torch.manual_seed(0)  # or it might be all but certain of a label
    head = build_head(HeadConfig(column="x", labels=("a\tb\nc", "[red]")), tiny_config())
    model = save_tiny(tmp_path, "odd", heads=[head])
    path = tmp_path / os.fsdecode(b"\xff\n\x1b[31m.wav")
    soundfile.write(tmp_path / "a.wav", noise(2000), RATE)
    (tmp_path / "a.wav").rename(path)
    done = cli("predict", path, "-m", model)
    assert done.code == 0
    assert len(rows(done)) == 1
    assert b"\\xff\\n\\x1b[31m.wav\t" in done.out
    assert b"[red] 0." in done.out
    (line,) = cli("predict", path, "-m", model, "--json").lines
    assert line["path"] == str(path)
    assert {each["label"] for each in line["labels"]["x"]} == set(head.config.labels)


def test_a_truncated_file_says_so(cli: Cli, tmp_path: Path, one: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(40_000), RATE)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) * 2 // 3])
    done = cli("predict", tmp_path / "a.flac", "-m", one)
    assert done.code == 0
    assert len(rows(done)) == 1
    assert "truncated" in done.err


@pytest.mark.parametrize("arguments", [[], ["-m", "toy"]])
def test_a_model_without_labels_says_what_to_do(cli: Cli, songs: Path, arguments: list[str]) -> None:
    if not arguments and load_bundle("base").heads:
        pytest.skip("base was trained on labels")
    done = cli("predict", songs, *arguments)
    assert (done.code, done.out) == (1, b"")
    assert "poolembed train" in done.err


def test_no_song(cli: Cli, tmp_path: Path, one: Path) -> None:
    done = cli("predict", tmp_path, "-m", one)
    assert (done.code, done.out) == (1, b"")
    assert "no audio file" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "PATH"),
        (["a.wav", "--top", "0"], "--top"),
        (["a.wav", "--threshold", "1.5", "--timestamps", "1"], "--threshold"),
        (["SONG", "--threshold", "0.5"], "--timestamps"),
        (["SONG", "--threshold", "0.5", "--timestamps", "1", "--head", "sound"], "--pool predictions"),
        (["SONG", "--head", "smell"], "sound, place"),
        (["SONG", "--timestamps", "0.001"], "0.04 seconds"),
        (["SONG", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_use(cli: Cli, songs: Path, both: Path, arguments: list[str], words: str) -> None:
    done = cli("predict", *[str(songs / "a.wav") if word == "SONG" else word for word in arguments], "-m", both)
    assert (done.code, done.out) == (2, b"")
    assert words in done.err
