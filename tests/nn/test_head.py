"""Heads: what they compute, where they must stay, and that they can be trained."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from poolembed.nn.config import HeadConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, FrameHead, build_head
from poolembed.nn.pooling import AutoPool, MeanState, TemporalPool
from tests.conftest import tiny_config

LABELS = ("dog", "rain", "crow")
MODEL = tiny_config()
C, D, K = MODEL.encoder.frame_features, MODEL.embedding_size, len(LABELS)
SINGLE = ("mean", "max", "softmax", "autopool", "gem", "attention")

every_pooling = pytest.mark.parametrize("kind", SINGLE)
either_way = pytest.mark.parametrize("multi_label", [False, True])
quick = settings(max_examples=25)


def on_features(multi_label: bool = False) -> EmbeddingHead:
    head = build_head(HeadConfig(column="label", labels=LABELS, multi_label=multi_label), MODEL)
    assert isinstance(head, EmbeddingHead)
    return head


def on_frames(kind: Any = "autopool", multi_label: bool = True, **pooling: Any) -> FrameHead:
    """A seeded head whose pooling has a different parameter per class."""
    torch.manual_seed(0)
    config = HeadConfig(
        column="label",
        labels=LABELS,
        multi_label=multi_label,
        pool="predictions",
        pooling=PoolingConfig(kind=kind, **pooling),
    )
    head = build_head(config, MODEL)
    assert isinstance(head, FrameHead)
    for parameter in head.pool.parameters():
        parameter.data += torch.linspace(0, 3, parameter.numel()).reshape(parameter.shape)
    return head


def frames(batch: int, time: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(batch, C, time, generator=torch.Generator().manual_seed(1)).relu()


class TestConfig:
    def test_it_can_be_written_and_read(self) -> None:
        for config in (on_features().config, on_frames(multi_label=True).config):
            assert msgspec.json.decode(msgspec.json.encode(config), type=HeadConfig) == config

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"labels": ("a", "b", "a")}, "differ"),
            ({"pool": "predictions"}, "pooling"),
            ({"pooling": PoolingConfig()}, "pooling"),
            ({"pool": "predictions", "pooling": PoolingConfig(kind="mean+max")}, "mean+max"),
            ({"pool": "predictions", "pooling": PoolingConfig(kind="attentive-statistics")}, "attentive-statistics"),
        ],
    )
    def test_what_cannot_be(self, options: dict[str, Any], word: str) -> None:
        with pytest.raises(ValueError, match=word.replace("+", r"\+")):
            HeadConfig(**{"column": "label", "labels": LABELS, **options})

    @pytest.mark.parametrize("data", [b'{"column":"x","labels":[]}', b'{"column":"x","labels":["a"],"more":1}'])
    def test_what_cannot_be_read(self, data: bytes) -> None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(data, type=HeadConfig)


class TestEmbeddingHead:
    def test_scaled_cosines(self) -> None:
        head = on_features()
        head.bias.data = torch.tensor([1.0, 0.0, -1.0])
        head.log_scale.data.fill_(math.log(7.0))
        head.weight.data *= torch.tensor([[0.1], [1.0], [100.0]])
        e = functional.normalize(torch.randn(5, D), dim=1)
        expected = 7 * functional.cosine_similarity(e.unsqueeze(1), head.weight.unsqueeze(0), dim=2) + head.bias
        torch.testing.assert_close(head(e), expected)

    @either_way
    def test_probabilities(self, multi_label: bool) -> None:
        head = on_features(multi_label)
        e = functional.normalize(torch.randn(5, D), dim=1)
        p = head.probabilities(e)
        expected = head(e).sigmoid() if multi_label else head(e).softmax(1)
        assert torch.equal(p, expected)

    def test_float32_under_autocast_and_for_float64(self) -> None:
        head, e = on_features(), functional.normalize(torch.randn(5, D), dim=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(head(e), head(e).float())
            cast = head(e)
        assert torch.equal(cast, head(e))
        torch.testing.assert_close(head(e.double()), head(e))

    @either_way
    def test_it_learns(self, multi_label: bool) -> None:
        """Clusters of unit vectors, one of them rare; several labels: the first or the second coordinate's sign."""
        torch.manual_seed(0)
        head = on_features(multi_label)
        e = functional.normalize(torch.randn(400, D), dim=1)
        signs = torch.stack([e[:, 0] > 0, e[:, 1] > 0.3, e[:, 2] > 0.5], dim=1).float()
        classes = e[:, :K].argmax(1)
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0.05)
        for _ in range(200):
            logits = head(e)
            loss = (
                functional.binary_cross_entropy_with_logits(logits, signs)
                if multi_label
                else functional.cross_entropy(logits, classes)
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        p = head.probabilities(e)
        right = ((p > 0.5).float() == signs).float().mean() if multi_label else (p.argmax(1) == classes).float().mean()
        assert float(right) > 0.95


class TestFrameHead:
    @either_way
    @every_pooling
    def test_one_frame_is_its_own_probability(self, kind: str, multi_label: bool) -> None:
        head, x = on_frames(kind, multi_label), frames(4, 1)
        p = head.frame_probabilities(x).squeeze(-1)
        torch.testing.assert_close(head(x), p, rtol=1e-6, atol=1e-6)
        if not multi_label:
            torch.testing.assert_close(p.sum(1), torch.ones(4))

    @either_way
    def test_the_equation(self, multi_label: bool) -> None:
        """McFee et al. 2018: class probabilities of every frame, each class weighted by the softmax of alpha times."""
        head, x = on_frames("autopool", multi_label), frames(3, 20)
        assert isinstance(head.pool, AutoPool)
        alpha, weight = head.pool.alpha.detach().double().numpy(), head.classify.weight.detach().double().numpy()
        for song, found in zip(x.double().numpy(), head(x).detach(), strict=True):
            logits = weight @ song + head.classify.bias.detach().double().numpy()[:, None]
            p = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits) / np.exp(logits).sum(0)
            w = np.exp(alpha[:, None] * p)
            pooled = (p * w).sum(1) / w.sum(1)
            np.testing.assert_allclose(found.numpy(), pooled if multi_label else pooled / pooled.sum(), atol=1e-6)

    @either_way
    @every_pooling
    @quick
    @given(data=st.data())
    def test_pieces_merge_to_the_whole(self, kind: str, multi_label: bool, data: st.DataObject) -> None:
        head, x = on_frames(kind, multi_label), frames(2, 12, scale=4.0)
        cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=3)))
        pieces = [x[..., a:b] for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
        merged = reduce(head.merge, [head.fold(piece) for piece in pieces])
        torch.testing.assert_close(head.finalize(merged), head(x), rtol=1e-5, atol=1e-6)

    @every_pooling
    def test_masked_frames_do_not_count(self, kind: str) -> None:
        head, x = on_frames(kind), frames(3, 10)
        mask = torch.arange(10) < torch.tensor([[10], [1], [6]])
        p = head(x.masked_fill(~mask.unsqueeze(1), 1e3), mask)
        for row, n in enumerate((10, 1, 6)):
            torch.testing.assert_close(p[row : row + 1], head(x[row : row + 1, :, :n]))
        with pytest.raises(ValueError, match=r"\[1\]"):
            head(x, mask & (torch.arange(3) != 1).unsqueeze(1))

    @either_way
    @every_pooling
    @quick
    @given(
        dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
        scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
        sign=st.sampled_from([-1.0, 1.0]),
        time=st.integers(1, 9),
    )
    def test_probabilities_and_gradients_at_the_limits(
        self, kind: str, multi_label: bool, dtype: torch.dtype, scale: float, sign: float, time: int
    ) -> None:
        head, x = on_frames(kind, multi_label), sign * frames(3, time, scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            p = head(x.to(dtype))
        assert p.dtype == torch.float32
        assert bool(((p >= 0) & (p <= 1)).all())
        if not multi_label:
            torch.testing.assert_close(p.sum(1), torch.ones(3))
        loss = functional.binary_cross_entropy(p, (torch.arange(K) == 1).float().expand(3, K))
        names, parameters = zip(*head.named_parameters(), strict=True)
        for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
            assert bool(gradient.isfinite().all()), name

    @either_way
    @every_pooling
    def test_what_is_sure_and_wrong_can_still_learn(self, kind: str, multi_label: bool) -> None:
        """Logits of thousands: the gradient of the cross-entropy is p - t all the same, not 0."""
        head = on_frames(kind, multi_label)
        head.classify.weight.data = torch.zeros(K, C)
        head.classify.weight.data[0] = 1e3
        head.classify.bias.data.zero_()
        x = torch.ones(1, C, 1)
        p = head(x)
        assert float(p[0, 0].detach()) > 0.9999
        loss = functional.binary_cross_entropy(p, torch.zeros(1, K)) if multi_label else -p[0, 1].log()
        (gradient,) = torch.autograd.grad(loss * (K if multi_label else 1), head.classify.bias)
        expected = torch.tensor([1.0, 0.5, 0.5]) if multi_label else torch.tensor([1.0, -1.0, 0.0])
        torch.testing.assert_close(gradient, expected, rtol=0, atol=0.02)

    def test_autocast_changes_nothing(self) -> None:
        head, x = on_frames(), frames(2, 30)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = head(x)
        assert torch.equal(cast, head(x))

    def test_a_probability_that_rounding_raised_above_1_still_learns(self) -> None:
        head = on_frames("mean")
        total = torch.full((1, K), 3.75).requires_grad_()
        p = head.finalize(MeanState(torch.full((1, K), 3.0), total))
        assert bool((p == 1).all())
        (gradient,) = torch.autograd.grad(p.sum(), total)
        assert bool((gradient > 0).all())

    @pytest.mark.parametrize(("scope", "shape"), [("channel", (K,)), ("scalar", ())])
    def test_one_alpha_a_class_that_training_finds(self, scope: Any, shape: tuple[int, ...]) -> None:
        head = on_frames("autopool", scope=scope, alpha_max=4.0, alpha_l2=0.5)
        (pool,) = [module for module in head.modules() if isinstance(module, TemporalPool)]
        assert isinstance(pool, AutoPool)
        assert pool.alpha.shape == shape
        assert float(pool.penalty().detach()) > 0
        pool.alpha.data.fill_(99.0)
        pool.project_()
        assert bool((pool.alpha == 4).all())

    @every_pooling
    def test_it_learns_when_from_whether(self, kind: str) -> None:
        """Bags of frames, one frame in a positive bag has the feature: bag labels alone teach the frames' labels."""
        torch.manual_seed(0)
        x = 0.3 * torch.rand(64, C, 8)
        y = torch.arange(64) % 2 == 0
        when = torch.randint(8, (64,))
        x[y, 0, when[y]] = 3.0
        head = on_frames(kind)
        target = torch.stack([y, ~y, y], dim=1).float()
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(150):
            loss = functional.binary_cross_entropy(head(x), target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            for module in head.modules():
                if isinstance(module, TemporalPool):
                    module.project_()
        found = head.frame_probabilities(x[y])[:, 0].argmax(-1)
        assert float((found == when[y]).float().mean()) > 0.95
