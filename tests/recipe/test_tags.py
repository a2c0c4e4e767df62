"""Heads that learn a teacher's probabilities: one that is a head is found again, and the bundle keeps its weights."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.recipe import tags
from models.recipe.tables import write_table
from models.recipe.tags import CLASSES, Examples, agreement, as_head, crosswise, explained, fit, occurs, sigmoid, write
from poolembed.bundle import load_bundle, save_bundle
from poolembed.embed.model import build_engine
from poolembed.evaluate.clips import embed_clips
from poolembed.heads import load_tagger
from poolembed.labels import read_labels
from tests.conftest import tiny_network
from tests.train.runs import write_clips

pyarrow = pytest.importorskip("pyarrow")


def units(count: int, size: int = 8, seed: int = 0) -> NDArray[np.float32]:
    matrix = np.random.default_rng(seed).standard_normal((count, size))
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def ship(path: Path) -> None:
    """A bundle as one that ships, without heads."""
    save_bundle(path, tiny_network(), name="tiny", license="MIT", card="tiny", nested=(2, 4), half=True)


WEIGHT = np.float32(8) * units(3, seed=1) * np.array([[0.5], [1.0], [2.0]], np.float32)
BIAS = np.array([-2.0, 0.0, -4.0], np.float32)


def test_a_head_is_learned_from_its_own_probabilities() -> None:
    vectors = units(400)
    targets = sigmoid(vectors @ WEIGHT.T + BIAS)
    # A few that say the opposite and count for nothing.
    weights = np.r_[np.ones(390, np.float32), np.zeros(10, np.float32)]
    training = Examples(vectors, np.concatenate([targets[:390], 1 - targets[390:]]), weights, np.arange(400) % 2)
    weight, bias = fit(training)
    np.testing.assert_allclose(crosswise(training)[:390], targets[:390], atol=0.04)
    found = sigmoid(units(100, seed=2) @ weight.T + bias)
    expected = sigmoid(units(100, seed=2) @ WEIGHT.T + BIAS)
    np.testing.assert_allclose(found, expected, atol=0.02)
    head = as_head("x", ["a", "b", "c"], weight, bias)
    same = head.probabilities(torch.from_numpy(vectors)).detach().numpy()
    np.testing.assert_allclose(same, sigmoid(vectors @ weight.T + bias), atol=1e-5)


def test_agreement_with_itself_and_with_chance() -> None:
    targets = sigmoid(np.random.default_rng(0).normal(0, 6, (300, 12)).astype(np.float32))
    same = agreement(targets, targets)
    assert (same.clips, same.first, same.five, same.precision, same.decided) == (300, 1, 1, 1, 12)
    assert same.error == pytest.approx(0, abs=1e-6)
    other = agreement(targets, np.roll(targets, 1, axis=0))
    assert other.first < 0.3
    assert other.precision < 0.65
    assert agreement(targets, targets / np.float32(2)).error > 0.2
    assert agreement(targets[:, :3] / np.float32(4), targets[:, :3]).decided == 0


def test_what_is_explained() -> None:
    random = np.random.default_rng(0)
    teacher = random.uniform(0, 1, (100, 4)).astype(np.float32)
    teacher[:, 3] *= 0.09  # never heard
    prior = teacher.mean(0)
    found = np.stack([teacher[:, 0], random.permutation(teacher[:, 1]), np.tile(prior[2], 100), teacher[:, 3]], 1)
    shares = explained(teacher, found, prior)
    assert shares[0] == pytest.approx(1)
    assert shares[1] < 0
    assert shares[2] == pytest.approx(0, abs=1e-6)
    assert occurs(teacher).tolist() == [True, True, True, False]


def test_a_bundle_gets_heads_and_keeps_its_weights(tmp_path: Path) -> None:
    """One that ships has its weights in float16. Heads are replaced, and the next ones need not be as many."""
    ship(tmp_path / "tiny")
    before = {file.name: file.read_bytes() for file in (tmp_path / "tiny").iterdir()}
    fingerprint = load_bundle(tmp_path / "tiny").fingerprint
    for count in (3, 2):
        head = as_head("x", ["a", "b", "c"][:count], units(count), np.zeros(count, np.float32))
        write(tmp_path / "tiny", load_bundle(tmp_path / "tiny"), [head])
        after = {file.name: file.read_bytes() for file in (tmp_path / "tiny").iterdir()}
        assert {name for name in after if before.get(name) != after[name]} >= {"config.json", "heads.safetensors"}
        assert after["model.safetensors"] == before["model.safetensors"]
        loaded = load_bundle(tmp_path / "tiny")
        assert loaded.fingerprint == fingerprint
        assert loaded.config.nested == (2, 4)
        assert [len(each.config.labels) for each in load_tagger(tmp_path / "tiny").heads] == [count]


def test_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A made-up teacher that hears by the embedding itself is learned from a table of clips and of whole tracks."""
    from models.recipe.teachers.vectors import _write

    write_clips(tmp_path / "corpus", labels=3, clips=12)
    ship(tmp_path / "tiny")
    rows = []
    for number, path in enumerate(sorted((tmp_path / "corpus").rglob("*.wav"))):
        known = {"path": str(path.relative_to(tmp_path / "corpus")), "kind": "music", "split": "train"}
        known["split"] = "valid" if number % 3 == 2 else "train"
        rows += [{**known, "start": 0.04 * at, "end": 0.04 * at + 0.1} for at in range(4)]
    write_table(tmp_path / "corpus" / "corpus.csv", rows)
    clips = read_labels(tmp_path / "corpus" / "corpus.csv", columns=("kind",), need_labels=False).clips
    fingerprint = load_bundle(tmp_path / "tiny").fingerprint
    found = embed_clips(build_engine(load_bundle(tmp_path / "tiny").network), clips)
    classes = len(tomllib.loads(CLASSES.read_text())["jamendo"])
    direction = found.matrix[0] - found.matrix[-1]
    logits = np.full((len(clips), classes), -9.0, np.float32)
    logits[:, 7] = 20 * found.matrix @ direction
    (tmp_path / "targets").mkdir()
    _write(tmp_path / "targets" / "musicnn-jamendo-logits.parquet", [clip.key for clip in clips], logits)
    arguments = [str(tmp_path / name) for name in ("corpus/corpus.csv", "targets", "tiny")]
    assert tags.main(arguments) == 0
    assert "jamendo: 1 of the teacher's 50 classes" in capsys.readouterr().out
    tagger = load_tagger(tmp_path / "tiny")
    assert tagger.tags == [("jamendo", "easy listening")]
    heard = tagger.heads[0].probabilities(found.matrix)[:, 0]
    assert np.corrcoef(heard, sigmoid(logits[:, 7]))[0, 1] > 0.9
    assert "whole tracks" in (tmp_path / "tiny" / "TAGS.md").read_text()
    assert load_bundle(tmp_path / "tiny").fingerprint == fingerprint
    # What is kept needs no audio.
    for file in (tmp_path / "corpus").rglob("*.wav"):
        file.write_bytes(b"")
    before = (tmp_path / "tiny" / "heads.safetensors").read_bytes()
    assert tags.main(arguments) == 0
    assert (tmp_path / "tiny" / "heads.safetensors").read_bytes() == before
