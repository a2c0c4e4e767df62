"""What of a crop is pooled: the clip, wherever in the crop it begins."""

from __future__ import annotations

import pytest
import torch

from poolembed.train.objectives import Rows, Term
from tests.conftest import tiny_heads, tiny_network

STARTS = (0, 4, 12, 28)  # multiples of the 4 mel frames that a feature stands for
FRAMES = 40


def student() -> Student:
    return Student(tiny_network(), tiny_heads()).eval()


@pytest.mark.parametrize("start", STARTS)
def test_a_clip_that_begins_later_is_pooled_from_there(start: int) -> None:
    """By the model and by the heads that pool frames."""
    made = student()
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
        rows, others = (made.finalize(state, torch.arange(2)) for state in (later, expected))
        torch.testing.assert_close(rows.embeddings, others.embeddings, rtol=0, atol=1e-6)
        assert set(rows.scores) == {"sound", "place"}


class Keep(Term):
    """A term of the loss that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Rows] = []

    def forward(self, rows: Rows) -> torch.Tensor:
        self.rows.append(rows)
        return rows.embeddings.sum()


def test_windows_up_to_where_the_clip_ends_are_encoded() -> None:
    """Not only up to where it would end if it began with the crop."""
    term = Keep()
    learner = Learner(student(), [term], [1.0], frozen=False).eval()
    mel = torch.randn(1, 2, 32, 16, generator=torch.Generator().manual_seed(0)) - 5
    start, frames = torch.tensor([20]), torch.tensor([24])
    with torch.no_grad():
        learner(mel, frames, torch.arange(1), None, start)
        features = learner.student.model.clip_features(mel)
        expected = learner.student.model.finalize(learner.student.model.fold(features, start, start + frames))
    torch.testing.assert_close(term.rows[0].embeddings, expected, rtol=0, atol=1e-6)
