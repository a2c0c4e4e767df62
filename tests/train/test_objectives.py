from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from poolembed.labels import Clip, DataReport, Division, Labelled
from poolembed.train.cache import MelCache
from poolembed.train.config import TrainConfig
from poolembed.train.dataset import Dataset
from poolembed.train.objectives.base import Mix, Objective, Outputs
from poolembed.train.objectives.classification import class_weights, cross_entropy, multi_hot
from poolembed.train.objectives.contrastive import contrastive_loss, label_numbers, share_a_label
from poolembed.train.objectives.distillation import Distillation, standardised
from poolembed.train.objectives.objectives import KINDS
from tests.conftest import tiny_config

SIZE = tiny_config().embedding_size
SEVERAL = pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])


def unit(n: int, seed: int = 0, size: int = 6) -> torch.Tensor:
    return functional.normalize(torch.randn(n, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def objective(kind: str, labels: Sequence[Sequence[str]], nested: Sequence[int] = (), **options: Any) -> Objective:
    """An objective of clips with these labels, all of which train."""
    clips = [Clip("", f"{i}.wav", {"label": tuple(mine)}) for i, mine in enumerate(labels)]
    several = any(len(mine) > 1 for mine in labels)
    labelled = Labelled(clips, "clips", ("label",), {"label": several}, {}, [])
    division = Division(list(range(len(clips))), [0], [])
    data = Dataset(labelled, cast(MelCache, None), [], division, cast(DataReport, None))
    settings = {"data": "", "output": "", "objectives": [{"kind": kind, **options}], "nested": list(nested)}
    config = msgspec.convert(settings, TrainConfig)
    torch.manual_seed(0)
    return KINDS[kind](config.objectives[0], config, data, tiny_config())


def distillation(folder: Path, targets: dict[int, list[float]], clips: int, nested: Sequence[int] = ()) -> Distillation:
    """Towards the vectors of some of the clips."""
    lines = [json.dumps({"path": f"{clip}.wav", "embedding": vector}) for clip, vector in targets.items()]
    (folder / "teacher.jsonl").write_text("\n".join(lines) + "\n")
    made = objective("distill", [()] * clips, nested, targets=str(folder / "teacher.jsonl"))
    assert isinstance(made, Distillation)
    return made


def loss(of: Objective, outputs: Outputs) -> torch.Tensor:
    (only,) = of.losses(outputs)
    return only


def test_classification_is_torchs_weighted_cross_entropy() -> None:
    scores, label, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 1.0, 3.0])
    found = cross_entropy(scores, functional.one_hot(label, 3).float(), torch.ones(5), weights, multi_label=False)
    torch.testing.assert_close(found, functional.cross_entropy(scores, label, weights))


def test_tagging_is_torchs_weighted_binary_cross_entropy() -> None:
    scores, tags, weights = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float(), torch.tensor([0.5, 1.0, 3.0])
    expected = functional.binary_cross_entropy_with_logits(scores, tags, pos_weight=weights)
    torch.testing.assert_close(cross_entropy(scores, tags, torch.ones(5), weights, multi_label=True), expected)


@SEVERAL
def test_pooled_probabilities_lose_what_their_logits_do(several: bool) -> None:
    logits, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    probabilities = logits.sigmoid() if several else logits.softmax(1)
    given = hot, torch.ones(4), torch.tensor([1.0, 2.0, 3.0])
    of_logits = cross_entropy(logits, *given, multi_label=several)
    of_probabilities = cross_entropy(probabilities, *given, multi_label=several, probabilities=True)
    torch.testing.assert_close(of_probabilities, of_logits, rtol=1e-4, atol=1e-5)


@SEVERAL
def test_a_clip_without_a_label_weighs_nothing(several: bool) -> None:
    scores, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    known, weights = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.ones(3)
    hot[2] = 0
    there = torch.tensor([0, 1, 3])
    expected = cross_entropy(scores[there], hot[there], known[there], weights, multi_label=several)
    torch.testing.assert_close(cross_entropy(scores, hot, known, weights, multi_label=several), expected)
    assert cross_entropy(scores[2:3], hot[2:3], known[2:3], weights, multi_label=several) == 0


@SEVERAL
def test_a_share_of_one_mixes_nothing(several: bool) -> None:
    scores, hot = torch.randn(4, 3), functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    given = hot, torch.ones(4), torch.tensor([1.0, 2.0, 3.0])
    mix = Mix(torch.tensor([1, 0, 3, 2]), torch.ones(4))
    mixed = cross_entropy(scores, *given, multi_label=several, mix=mix)
    torch.testing.assert_close(mixed, cross_entropy(scores, *given, multi_label=several))


def test_mixed_labels_are_the_mixture() -> None:
    scores, hot = torch.randn(2, 3), functional.one_hot(torch.tensor([0, 2]), 3).float()
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
    target = torch.tensor([[0.75, 0, 0.25], [0.25, 0, 0.75]])
    mixed = cross_entropy(scores, hot, torch.ones(2), torch.ones(3), multi_label=False, mix=mix)
    torch.testing.assert_close(mixed, functional.cross_entropy(scores, target))


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
def test_supervised_contrastive_is_the_papers_loss(labels: list[int], temperature: float) -> None:
    e = unit(len(labels), size=SIZE).double()
    supcon = objective("supcon", [[str(label)] for label in labels], temperature=temperature)
    found = loss(supcon, Outputs(torch.arange(len(labels)), e, {}))
    if len(set(labels)) == len(labels):
        assert found == 0
    else:
        assert float(found) == pytest.approx(slow_supcon(e, labels, temperature), rel=1e-4, abs=1e-6)


def test_one_shared_label_of_several_is_enough_and_none_is_shared_by_nobody() -> None:
    together = share_a_label(torch.from_numpy(label_numbers([["a", "b"], ["c", "b"], ["d"], [], []])))
    e = unit(5)
    assert float(contrastive_loss(e, together, 0.2)) == pytest.approx(slow_supcon(e, [1, 1, 2, 3, 4], 0.2), rel=1e-4)


def test_without_labels_two_views_of_a_clip_belong_together() -> None:
    clips, e = torch.tensor([7, 3, 7, 3]), unit(4, size=SIZE)
    found = loss(objective("contrastive", [()] * 8, temperature=0.2), Outputs(clips, e, {}))
    assert float(found) == pytest.approx(slow_supcon(e, clips.tolist(), 0.2), rel=1e-4)


def test_bringing_views_together_lowers_the_loss() -> None:
    e = torch.nn.Parameter(unit(6, size=SIZE))
    contrastive, clips = objective("contrastive", [()] * 3, temperature=0.5), torch.tensor([0, 1, 2, 0, 1, 2])
    before = loss(contrastive, Outputs(clips, functional.normalize(e, dim=1), {}))
    (gradient,) = torch.autograd.grad(before, e)
    assert loss(contrastive, Outputs(clips, functional.normalize(e - 0.1 * gradient, dim=1), {})) < before


def test_distillation_is_the_cosine_with_standardised_targets_of_the_clips_that_have_any(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    known = [0, 2, 3]
    distill = distillation(tmp_path, {clip: vectors[clip].tolist() for clip in known}, 4)
    e = unit(4, size=SIZE)
    targets = torch.from_numpy(standardised(vectors[known], np.ones(3, bool)))
    guess = distill.own[0](e)[known]
    expected = 1 - functional.cosine_similarity(guess, targets, dim=1).mean()
    torch.testing.assert_close(loss(distill, Outputs(torch.arange(4), e, {})), expected)


def test_targets_of_the_embeddings_size_are_first_compared_with_the_embedding_itself(tmp_path: Path) -> None:
    vectors = unit(3, size=SIZE).numpy()
    distill = distillation(tmp_path, dict(enumerate(vectors.tolist())), 3)
    targets = functional.normalize(torch.from_numpy(standardised(vectors, np.ones(3, bool))), dim=1)
    for size, linear in zip((SIZE, *distill.nested), distill.own, strict=True):
        expected = functional.pad(targets[:, :size], (0, SIZE - size))
        torch.testing.assert_close(linear(targets[:, :size]).detach(), expected)
    assert loss(distill, Outputs(torch.arange(3), targets, {})) < 0.1


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


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True), st.integers(2, 6))
def test_nested_is_the_mean_of_losses_on_shorter_unit_vectors(sizes: list[int], n: int) -> None:
    """A loss that is given vectors at unit length, of the whole size and of each of the first numbers."""
    e, seen = unit(n, size=SIZE), []

    def first_number(outputs: Outputs, place: int) -> torch.Tensor:
        seen.append((place, outputs.embeddings.shape[1]))
        return outputs.embeddings[:, 0].sum()

    found = objective("contrastive", [()] * n, sizes).over_sizes(Outputs(torch.arange(n), e, {}), first_number)
    shorter = [torch.stack([row[:size] / row[:size].square().sum().sqrt() for row in e]) for size in (SIZE, *sizes)]
    assert found.item() == pytest.approx(np.mean([float(part[:, 0].sum()) for part in shorter]), rel=1e-5, abs=1e-6)
    assert sorted(seen) == list(enumerate([SIZE, *sizes]))


def test_nothing_nested_is_the_loss_itself() -> None:
    outputs = Outputs(torch.arange(2), unit(2), {})
    one = torch.tensor(1.0)
    assert objective("contrastive", [()] * 2).over_sizes(outputs, lambda *_: one) is one


def test_nested_contrastive_looks_at_cosines_of_the_first_numbers() -> None:
    """Rows that differ in their last numbers alone are one to the first: the loss says so, and so does its gradient."""
    e = functional.normalize(torch.tensor([[1.0, 0, 2], [1, 0, -2], [0, 1, 2], [0, 1, -2]]), dim=1)
    e.requires_grad_()
    whole, both = (objective("contrastive", [()] * 2, sizes) for sizes in ([], [2]))
    clips = torch.tensor([0, 0, 1, 1])
    first = Outputs(clips, torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), {})
    expected = (loss(whole, Outputs(clips, e, {})) + loss(whole, first)) / 2
    torch.testing.assert_close(loss(both, Outputs(clips, e, {})), expected)
    assert loss(whole, first).item() < 0.01 < loss(whole, Outputs(clips, e, {})).item()


def test_nested_classification_masks_and_mixes_as_the_whole_does() -> None:
    """The classifier of the first numbers is one of its own; all else is as of the whole."""
    labels = [["a"], [], ["b"], ["b"]]
    classification = objective("classification", labels, [4])
    mix = Mix(torch.tensor([1, 0, 3, 2]), torch.tensor([0.75, 0.75, 0.6, 0.6]))
    e, scores = unit(4, size=SIZE), torch.randn(4, 2)
    outputs = Outputs(torch.arange(4), e, {"label": scores}, mix)
    hot, known = torch.from_numpy(multi_hot(labels, ["a", "b"])), torch.tensor([1.0, 0.0, 1.0, 1.0])
    weights = torch.from_numpy(class_weights(hot.numpy()[[0, 2, 3]], multi_label=False, balance=True))
    first = functional.normalize(e[:, :4], dim=1)
    expected = [
        cross_entropy(given, hot, known, weights, multi_label=False, mix=mix)
        for given in (scores, classification.own[0](first))
    ]
    torch.testing.assert_close(loss(classification, outputs), torch.stack(expected).mean())


@pytest.mark.parametrize("sizes", [(), (2, 3)])
def test_distillation_counts_only_the_clips_that_concern_it(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Any other clip's row leaves no gradient."""
    for known in ([0, 1], [1, 2], [3]):
        distill = distillation(tmp_path, {clip: [float(clip), 1.0, -2.0, 0.5] for clip in known}, 4, sizes)
        e = unit(4, size=SIZE).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(distill, Outputs(torch.arange(4), e, {})), e)
        if len(known) > 1:  # a single vector, standardised, is zero
            assert (gradient.abs().sum(1) > 0).nonzero().flatten().tolist() == known
        nobody = torch.tensor([clip for clip in range(4) if clip not in known])
        assert loss(distill, Outputs(nobody, unit(4, size=SIZE)[nobody], {})) == 0
