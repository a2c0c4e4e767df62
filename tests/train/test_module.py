"""What of a crop is pooled: the clip, wherever in the crop it begins."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from poolembed.train.module import HeadedModel, Inputs, TrainingModule
from poolembed.train.objectives.base import Objective, Outputs
from tests.conftest import tiny_heads, tiny_network

STARTS = (0, 4, 12, 28)  # multiples of the 4 mel frames that a feature stands for
FRAMES = 40


def headed() -> HeadedModel:
    return HeadedModel(tiny_network(), tiny_heads()).eval()


@pytest.mark.parametrize("start", STARTS)
def test_a_clip_that_begins_later_is_pooled_from_there(start: int) -> None:
    """By the model and by the heads that pool frames."""
    made = headed()
    mel = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(0)) - 5
    frames = torch.full((2,), FRAMES)
    with torch.no_grad():
        features = made.features(mel, frames + start)
        later = made.fold(features, frames, torch.full((2,), start))
        # Each part's own features of the same mel frames, in front of anything else.
        cut = [part[..., start * part.shape[-1] // 96 :] for part in features]
        expected = made.fold(cut, frames)
        for part, other in zip(later, expected, strict=True):
            for one, same in zip(part, other, strict=True):
                torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-6)
        outputs, others = (made.finalize(state, torch.arange(2)) for state in (later, expected))
        torch.testing.assert_close(outputs.embeddings, others.embeddings, rtol=0, atol=1e-6)
        assert set(outputs.scores) == {"sound", "place"}


class Keep:
    """An objective that keeps what it is given."""

    def __init__(self) -> None:
        self.own, self.weight, self.parts = torch.nn.ModuleList(), 1.0, ("kept",)
        self.outputs: list[Outputs] = []

    def losses(self, outputs: Outputs) -> list[torch.Tensor]:
        self.outputs.append(outputs)
        return [outputs.embeddings.sum()]


def test_windows_up_to_where_the_clip_ends_are_encoded() -> None:
    """Not only up to where it would end if it began with the crop."""
    objective = Keep()
    module = TrainingModule(headed(), cast("list[Objective]", [objective]), frozen=False).eval()
    mel = torch.randn(1, 2, 32, 16, generator=torch.Generator().manual_seed(0)) - 5
    start, frames = torch.tensor([20]), torch.tensor([24])
    with torch.no_grad():
        module(Inputs(mel, frames, torch.arange(1), start=start))
        features = module.headed.model.clip_features(mel)
        expected = module.headed.model.finalize(module.headed.model.fold(features, start, start + frames))
    torch.testing.assert_close(objective.outputs[0].embeddings, expected, rtol=0, atol=1e-6)
