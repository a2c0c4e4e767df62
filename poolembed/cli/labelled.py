"""Labels with their probabilities, as ``predict`` and ``tags`` print them: lines of TSV, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poolembed.cli.separated import harmless
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.heads import Labels


def tsv_line(first: Sequence[str], labels: Labels) -> str:
    """Cells that say of what, then one a label."""
    return "\t".join(map(harmless, [*first, *(f"{printable(label)} {p:.3f}" for label, p in labels)]))


def objects(labels: Labels) -> list[dict[str, object]]:
    """An object a label."""
    return [{"label": label, "probability": p} for label, p in labels]
