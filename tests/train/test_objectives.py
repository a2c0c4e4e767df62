from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from poolembed.nn.config import HeadConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead
from poolembed.train.objectives import (
    Classification,
    Distill,
    Mix,
    Nested,
    Rows,
    SameLabel,
    class_weights,
    label_numbers,
    multi_hot,
    nested,
    standardised,
)

CLASSES = HeadConfig(column="label", labels=("a", "b", "c"))
TAGS = HeadConfig(column="label", labels=("a", "b", "c"), multi_label=True)


def rows(scores: torch.Tensor, mix: Mix | None = None, clips: torch.Tensor | None = None) -> Rows:
    n = len(scores)
    return Rows(torch.arange(n) if clips is None else clips, torch.zeros(n, 4), {"label": scores}, mix)


def unit(n: int, seed: int = 0, size: int = 6) -> torch.Tensor:
    return functional.normalize(torch.randn(n, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_classification_is_torchs_weighted_cross_entropy() -> None:
    scores, label, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 1.0, 3.0])
    term = Classification(CLASSES, functional.one_hot(label, 3).float(), torch.ones(5), weights)
    torch.testing.assert_close(term(rows(scores)), functional.cross_entropy(scores, label, weights))


def test_tagging_is_torchs_weighted_binary_cross_entropy() -> None:
    scores, tags, weights = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float(), torch.tensor([0.5, 1.0, 3.0])
    term = Classification(TAGS, tags, torch.ones(5), weights)
    expected = functional.binary_cross_entropy_with_logits(scores, tags, pos_weight=weights)
    torch.testing.assert_close(term(rows(scores)), expected)


@pytest.mark.parametrize("config", [CLASSES, TAGS], ids=["one label", "several"])
def test_pooled_probabilities_lose_what_their_logits_do(config: HeadConfig) -> None:
    pooled = HeadConfig(
        column="label",
        labels=config.labels,
        multi_label=config.multi_label,
        pool="predictions",
        pooling=PoolingConfig(),
    )
    logits, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    probabilities = logits.sigmoid() if config.multi_label else logits.softmax(1)
    weights = torch.tensor([1.0, 2.0, 3.0])
    of_logits = Classification(config, hot, torch.ones(4), weights)(rows(logits))
    of_probabilities = Classification(pooled, hot, torch.ones(4), weights)(rows(probabilities))
    torch.testing.assert_close(of_probabilities, of_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [CLASSES, TAGS], ids=["one label", "several"])
def test_a_clip_without_a_label_weighs_nothing(config: HeadConfig) -> None:
    scores, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    labelled = torch.tensor([1.0, 1.0, 0.0, 1.0])
    hot[2] = 0
    term = Classification(config, hot, labelled, torch.ones(3))
    there = torch.tensor([0, 1, 3])
    torch.testing.assert_close(term(rows(scores)), term(rows(scores[there], clips=there)))
    assert term(rows(scores[2:3], clips=torch.tensor([2]))) == 0


@pytest.mark.parametrize("config", [CLASSES, TAGS], ids=["one label", "several"])
def test_a_share_of_one_mixes_nothing(config: HeadConfig) -> None:
    scores, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    term = Classification(config, hot, torch.ones(4), torch.tensor([1.0, 2.0, 3.0]))
    mix = Mix(torch.tensor([1, 0, 3, 2]), torch.ones(4))
    torch.testing.assert_close(term(rows(scores, mix)), term(rows(scores)))


def test_mixed_labels_are_the_mixture() -> None:
    scores, hot = torch.randn(2, 3), functional.one_hot(torch.tensor([0, 2]), 3).float()
    term = Classification(CLASSES, hot, torch.ones(2), torch.ones(3))
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
    target = torch.tensor([[0.75, 0, 0.25], [0.25, 0, 0.75]])
    torch.testing.assert_close(term(rows(scores, mix)), functional.cross_entropy(scores, target))


def test_a_term_can_have_a_classifier_of_its_own() -> None:
    own = EmbeddingHead(CLASSES, 4)
    term = Classification(CLASSES, torch.eye(3), torch.ones(3), torch.ones(3), own)
    batch = Rows(torch.arange(3), unit(3, size=4), {})
    torch.testing.assert_close(term(batch), functional.cross_entropy(own(batch.embeddings), torch.arange(3)))
    assert {id(p) for p in own.parameters()} <= {id(p) for p in term.parameters()}


def slow_supcon(e: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al., term by term."""
    losses = []
    for i in range(len(e)):
        others = [j for j in range(len(e)) if j != i]
        positive = [j for j in others if labels[j] == labels[i]]
        if positive:
            total = sum(float(torch.exp(e[i] @ e[k] / temperature)) for k in others)
            losses.append(
                -sum(np.log(float(torch.exp(e[i] @ e[j] / temperature)) / total) for j in positive) / len(positive)
            )
    return float(np.mean(losses))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.sampled_from([0.1, 0.5, 1.0]))
def test_same_label_is_the_papers_loss(labels: list[int], temperature: float) -> None:
    e = unit(len(labels)).double()
    numbers = torch.from_numpy(label_numbers([[str(label)] for label in labels]))
    loss = SameLabel(numbers, temperature)(Rows(torch.arange(len(labels)), e, {}))
    if len(set(labels)) == len(labels):
        assert loss == 0
    else:
        assert float(loss) == pytest.approx(slow_supcon(e, labels, temperature), rel=1e-4, abs=1e-6)


def test_one_shared_label_of_several_is_enough_and_none_is_shared_by_nobody() -> None:
    numbers = torch.from_numpy(label_numbers([["a", "b"], ["c", "b"], ["d"], [], []]))
    e = unit(5)
    loss = SameLabel(numbers, 0.2)(Rows(torch.arange(5), e, {}))
    assert float(loss) == pytest.approx(slow_supcon(e, [1, 1, 2, 3, 4], 0.2), rel=1e-4)


def test_without_labels_two_views_of_a_clip_belong_together() -> None:
    clips = torch.tensor([7, 3, 7, 3])
    e = unit(4)
    loss = SameLabel(None, 0.2)(Rows(clips, e, {}))
    assert float(loss) == pytest.approx(slow_supcon(e, clips.tolist(), 0.2), rel=1e-4)


def test_bringing_views_together_lowers_the_loss() -> None:
    e = torch.nn.Parameter(unit(6))
    term, clips = SameLabel(None, 0.5), torch.tensor([0, 1, 2, 0, 1, 2])
    before = term(Rows(clips, functional.normalize(e, dim=1), {}))
    before.backward()
    assert e.grad is not None
    after = term(Rows(clips, functional.normalize(e - 0.1 * e.grad, dim=1), {}))
    assert after < before


def test_distillation_ignores_the_targets_length_and_clips_without_one() -> None:
    torch.manual_seed(0)
    targets, e = torch.randn(4, 5), unit(4)
    known = torch.tensor([1.0, 0.0, 1.0, 1.0])
    term = Distill(6, targets, known)
    batch = Rows(torch.arange(4), e, {})
    guess = term.project(e)[[0, 2, 3]]
    expected = 1 - functional.cosine_similarity(guess, targets[[0, 2, 3]], dim=1).mean()
    torch.testing.assert_close(term(batch), expected)
    longer = Distill(6, targets * torch.tensor([2.0, 9.0, 5.0, 0.1]).unsqueeze(1), known)
    longer.load_state_dict(term.state_dict())
    torch.testing.assert_close(longer(batch), term(batch))


def test_standardised_has_mean_zero_and_deviation_one_where_it_was_fitted() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(3, 2, (50, 4)).astype(np.float32)
    vectors[:, 3] = 7
    fit = random.random(50) > 0.3
    result = standardised(vectors, fit)
    np.testing.assert_allclose(result[fit].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(result[fit].std(0), [1, 1, 1, 0], atol=1e-5)
    assert result.dtype == np.float32


def test_multi_hot_leaves_unknown_labels_out() -> None:
    np.testing.assert_array_equal(multi_hot([["b"], [], ["a", "z"]], ["a", "b"]), [[0, 1], [0, 0], [1, 0]])


def test_balanced_classes_count_alike() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 10 + [1] * 3 + [2])
    hot = np.eye(3, dtype=np.float32)[labels]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(hot, multi_label=False, balance=True), expected, rtol=1e-6)
    np.testing.assert_array_equal(class_weights(hot, multi_label=False, balance=False), 1)
    np.testing.assert_allclose(class_weights(hot, multi_label=True, balance=True), [1, 11 / 3, 13])


def matryoshka(term: Nested) -> list[torch.nn.Module]:
    return [term.whole, *term.parts]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True), st.integers(2, 6))
def test_nested_is_the_mean_of_terms_on_shorter_unit_vectors(sizes: list[int], n: int) -> None:
    targets, known = torch.randn(n, 3), torch.ones(n)
    term = nested(Distill(6, targets, known), sizes, lambda size: Distill(size, targets, known))
    assert isinstance(term, Nested)
    e = unit(n)
    losses = []
    for size, part in zip([6, *sizes], matryoshka(term), strict=True):
        shorter = torch.stack([row[:size] / row[:size].square().sum().sqrt() for row in e])
        losses.append(part(Rows(torch.arange(n), shorter, {})).item())
    assert term(Rows(torch.arange(n), e, {})).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_nothing_nested_is_the_term_itself() -> None:
    term = SameLabel(None, 0.1)
    assert nested(term, (), lambda _: pytest.fail("called")) is term


def test_nested_same_label_looks_at_cosines_of_the_first_numbers() -> None:
    """Rows that differ in their last numbers alone are one to the first: the loss says so, and so does its gradient."""
    e = functional.normalize(torch.tensor([[1.0, 0, 2], [1, 0, -2], [0, 1, 2], [0, 1, -2]]), dim=1)
    e.requires_grad_()
    whole = SameLabel(None, 0.1)
    term = nested(whole, [2], lambda _: whole)
    clips = torch.tensor([0, 0, 1, 1])
    first = Rows(clips, torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), {})
    torch.testing.assert_close(term(Rows(clips, e, {})), (whole(Rows(clips, e, {})) + whole(first)) / 2)
    assert whole(first).item() < 0.01 < whole(Rows(clips, e, {})).item()


def test_nested_classification_masks_and_mixes_as_the_whole_does() -> None:
    hot, labelled = torch.eye(3)[[0, 2, 1, 1]], torch.tensor([1.0, 0.0, 1.0, 1.0])
    parts: list[Classification] = []

    def part(size: int) -> Classification:
        parts.append(Classification(CLASSES, hot, labelled, torch.ones(3), EmbeddingHead(CLASSES, size)))
        return parts[-1]

    term = nested(part(6), [4], part)
    mix = Mix(torch.tensor([1, 0, 3, 2]), torch.tensor([0.75, 0.75, 0.6, 0.6]))
    e = unit(4)
    batch = Rows(torch.arange(4), e, {"label": torch.full((4, 3), torch.nan)}, mix)
    first = Rows(torch.arange(4), functional.normalize(e[:, :4], dim=1), {}, mix)
    torch.testing.assert_close(term(batch), (parts[0](batch) + parts[1](first)) / 2)


def test_every_term_counts_only_the_clips_that_concern_it() -> None:
    """Three teachers and a label, each with clips of its own: any other clip's row leaves no gradient."""
    torch.manual_seed(1)
    known = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    for sizes in ((), (2, 3)):
        for i, mine in enumerate(known):
            targets = torch.randn(4, 5 + i)
            term = nested(Distill(6, targets, mine), sizes, lambda s, t=targets, k=mine: Distill(s, t, k))  # type: ignore[misc]
            e = unit(4).requires_grad_()
            term(Rows(torch.arange(4), e, {})).backward()
            assert e.grad is not None
            assert ((e.grad.abs().sum(1) > 0) == (mine > 0)).all()
            nobody = torch.nonzero(mine == 0).flatten()
            assert term(Rows(nobody, unit(4)[nobody], {})) == 0
