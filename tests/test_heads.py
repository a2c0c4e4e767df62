"""Heads without torch: what numpy makes of them is what torch makes of them, and names lead to classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from poolembed.bundle import load_bundle, save_bundle
from poolembed.catalog import CONFIG, FORMAT, HEADS
from poolembed.errors import BundleError, BundleNotFoundError, UsageError
from poolembed.heads import LinearHead, Tagger, load_tagger, load_tagger_of
from poolembed.identity import ModelIdentity
from poolembed.nn.config import HeadConfig
from poolembed.nn.head import EmbeddingHead, Head
from tests.compass import COMPASS, HALVES, compass, compass_heads, heard
from tests.conftest import tiny_config, tiny_heads, tiny_network

DEGREES = np.arange(0.0, 360.0, 7.0)
CIRCLE = np.stack([np.cos(np.radians(DEGREES)), np.sin(np.radians(DEGREES))], 1).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    return compass(tmp_path_factory.mktemp("models"), save_tiny)[0]


@pytest.fixture(scope="module")
def tagger(bundle: Path) -> Tagger:
    return load_tagger(bundle)


def saved(folder: Path, heads: list[Head], **options: Any) -> Path:
    save_bundle(folder / "b", tiny_network(), name="b", license="MIT", card="b", heads=heads, **options)
    return folder / "b"


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("scale", ["head", "class"])
@pytest.mark.parametrize("half", [False, True])
def test_numpy_makes_of_a_head_what_torch_does(tmp_path: Path, multi_label: bool, scale: Any, half: bool) -> None:
    labels = ("dog", "rain", "crow", "owl")
    head = EmbeddingHead(HeadConfig(column="x", labels=labels, multi_label=multi_label, scale=scale), 8)
    random = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        parameter.data = 2 * torch.randn(parameter.shape, generator=random)
    units = torch.nn.functional.normalize(torch.randn(50, 8, generator=random))
    path = saved(tmp_path, [*tiny_heads()[1:], head], half=half)
    (found,) = load_tagger(path).heads
    assert found.config == head.config
    for torch_head, tolerance in ((load_bundle(path).heads[1], 1e-5), (head, 1e-2 if half else 1e-5)):
        assert isinstance(torch_head, EmbeddingHead)
        expected = torch_head.probabilities(units).detach().numpy()
        np.testing.assert_allclose(found.probabilities(units.numpy()), expected, rtol=0, atol=tolerance)


def test_no_logit_is_too_large(tmp_path: Path) -> None:
    heads = compass_heads()
    heads[0].log_scale.data.fill_(10.0)
    save_bundle(
        tmp_path / "b", tiny_network(tiny_config(embedding_size=2)), name="b", license="MIT", card="", heads=heads
    )
    p = load_tagger(tmp_path / "b").heads[0].probabilities(CIRCLE)
    assert ((p >= 0) & (p <= 1)).all()


class TestNames:
    def test_all_of_them(self, tagger: Tagger) -> None:
        assert tagger.tags == [*(("compass", name) for name in COMPASS), *(("halves", name) for name in HALVES)]

    @pytest.mark.parametrize("name", ["East", "east", " EAST ", "compass:east"])
    def test_a_name(self, tagger: Tagger, name: str) -> None:
        np.testing.assert_allclose(tagger.heard(CIRCLE, [name])[:, 0], heard("East", DEGREES), atol=1e-6)

    def test_a_name_that_two_heads_have_is_their_mean(self, tagger: Tagger) -> None:
        both, one, other = tagger.heard(CIRCLE, ["north", "compass:North", "halves:north"]).T
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-7)
        assert abs(one - other).max() < 1e-6  # of the same scale

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("eastt", "are: East, West;"), ("th", "are: north, South;"), ("far west", "are: West;"), ("", "")],
    )
    def test_one_that_is_none(self, tagger: Tagger, name: str, nearest: str) -> None:
        with pytest.raises(UsageError, match="the model m has no tag") as caught:
            tagger.heard(CIRCLE, ["East", name])
        assert nearest in (caught.value.hint or "")
        assert "poolembed tags --list" in (caught.value.hint or "")

    def test_spaces_and_what_no_terminal_should_be_sent(self) -> None:
        head = LinearHead(
            HeadConfig(column="x", labels=("a\t b", "\x1b[2J")), np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
        )
        tagger = Tagger("m", (head,))
        units = np.eye(2, dtype=np.float32)
        np.testing.assert_array_equal(tagger.heard(units, ["A b"]), tagger.heard(units, ["x:a\t b"]))
        with pytest.raises(UsageError) as caught:
            tagger.heard(units, ["2j"])
        assert r"are: \x1b[2J;" in (caught.value.hint or "")


class TestLoading:
    def test_the_model_is_the_same_with_them(
        self, bundle: Path, tmp_path: Path, save_tiny: Callable[..., Path]
    ) -> None:
        without = save_tiny(tmp_path, "without", embedding_size=2)
        assert load_bundle(without).fingerprint == load_bundle(bundle).fingerprint
        written = [json.loads((path / CONFIG).read_bytes()) for path in (without, bundle)]
        assert [config["poolembed_bundle"] for config in written] == [1, FORMAT]
        assert written[1]["heads"][1]["scale"] == "class"
        assert "scale" not in written[1]["heads"][2]

    def test_a_scale_is_none_of_frames(self) -> None:
        config = tiny_heads()[1].config
        with pytest.raises(ValueError, match="scale"):
            HeadConfig(column="x", labels=("a",), pool="predictions", pooling=config.pooling, scale="class")

    @pytest.mark.parametrize(("heads", "what"), [([], "no head"), (tiny_heads()[1:], "from embeddings")])
    def test_without_a_head_on_the_embedding(self, tmp_path: Path, heads: list[Head], what: str) -> None:
        with pytest.raises(BundleError, match=f"knows no labels: .*{what}") as caught:
            load_tagger(saved(tmp_path, heads))
        assert "poolembed train" in (caught.value.hint or "")

    def test_of_other_weights(self, bundle: Path) -> None:
        with pytest.raises(BundleError, match=r"of the model m \(ffffffff\), and .* is another"):
            load_tagger(bundle, ModelIdentity("m", "f" * 64, 2))

    def test_whose_vectors_they_are_has_to_be_known(self, bundle: Path) -> None:
        with pytest.raises(UsageError, match=r"x\.npy does not say which model"):
            load_tagger_of(None, "x.npy", None)
        assert load_tagger_of(None, "x.npy", bundle).name == "m"
        with pytest.raises(BundleError, match=r"of the model gone .* not at hand"):
            load_tagger_of(ModelIdentity("gone", "f" * 64, 2), "out", None)
        with pytest.raises(BundleNotFoundError, match="nowhere"):
            load_tagger_of(ModelIdentity("gone", "f" * 64, 2), "out", "nowhere")

    @pytest.mark.parametrize(
        ("name", "tensor", "reason"),
        [
            ("1.weight", None, "1.weight"),
            ("1.weight", torch.zeros(3, 3), "1.weight"),
            ("2.bias", torch.zeros(2, dtype=torch.int64), "2.bias"),
            ("1.log_scale", torch.zeros(()), "1.log_scale"),
            ("1.bias", torch.full((3,), torch.nan), "NaN"),
            ("1.weight", torch.full((3, 2), 1e300, dtype=torch.float64), "infinite"),
            ("1.log_scale", torch.full((3,), 99.0), "infinite"),
        ],
    )
    def test_damage(self, tmp_path: Path, save_tiny: Callable[..., Path], name: str, tensor: Any, reason: str) -> None:
        path, _ = compass(tmp_path, save_tiny)
        tensors = load((path / HEADS).read_bytes())
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
        (path / HEADS).write_bytes(data := save(tensors))
        with pytest.raises(BundleError, match="SHA-256"):
            load_tagger(path)
        config = json.loads((path / CONFIG).read_bytes())
        config["heads_sha256"] = hashlib.sha256(data).hexdigest()
        (path / CONFIG).write_text(json.dumps(config))
        with pytest.raises(BundleError, match=reason):
            load_tagger(path)
        (path / HEADS).write_bytes(b"no weights")
        config["heads_sha256"] = hashlib.sha256(b"no weights").hexdigest()
        (path / CONFIG).write_text(json.dumps(config))
        with pytest.raises(BundleError, match="safetensors"):
            load_tagger(path)
