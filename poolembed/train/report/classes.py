"""What each label column came to: classes, what is taken for what, and the clips that are most confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.train.report import charts
from poolembed.train.report.files import RunFiles
from poolembed.train.report.page import Html, Row, element, figure, more, paragraph, table

PAIRS = 15
"""Confusions that are listed."""


def classes(run: RunFiles) -> Html:
    """Scores of every class, and the confusion matrix, or average precisions where clips have several labels."""
    heads = run.results["heads"]
    if not heads:
        return paragraph(
            "This run had no labels to classify, so there are no classes to score. Given labelled clips, ",
            element("code", "poolembed evaluate"),
            " tells whether its embeddings put together what belongs together.",
        )
    return Html("".join(_one(column, head, run.held_out) for column, head in heads.items()))


def _one(column: str, head: Mapping[str, Any], held_out: int) -> Html:
    labels, scores = head["labels"], head["per_class"]
    parts = [element("h3", f"{column}: {len(labels):,} classes")]
    if head["confusion"] is not None:
        parts.append(_confusion(np.array(head["confusion"], np.int64), labels))
    elif len(labels) <= charts.DRAWN:
        precisions = [score["average_precision"] for score in scores]
        chance = [score["clips"] / max(held_out, 1) for score in scores]
        chart = charts.average_precisions(labels, precisions, chance, f"Average precision of every class of {column}")
        parts.append(figure(chart, "Average precision of every class on the clips held out; a random order has less."))
    key = "average_precision" if head["multi_label"] else "f1"
    rows = [
        [s["label"], s["clips"], s["precision"], s["recall"], s["f1"], s["average_precision"]]
        for s in sorted(scores, key=lambda score: (score[key] is None, score[key] or 0.0))
    ]
    made = table(
        ["class", "clips", "precision", "recall", "F1", "average precision"],
        rows,
        numbers=".3f",
        bars=range(2, 6),
        caption="Every class on the clips held out, the worst first",
    )
    parts.append(made if len(labels) <= charts.DRAWN else more(f"All {len(labels):,} classes", made))
    return Html("".join(parts))


def _confusion(matrix: NDArray[np.int64], labels: Sequence[str]) -> Html:
    right, total = int(np.trace(matrix)), int(matrix.sum())
    said = f"{right:,} of {total:,} clips held out are right."
    drawn = len(labels) <= charts.DRAWN
    if drawn:
        chart = charts.confusion(matrix, labels, "Confusion matrix; its numbers are in the tables below")
        caption = "A row is a class and what its clips were taken for; the stronger the colour, the more of them."
        parts = [figure(chart, f"{caption} {said}")]
    else:
        parts = [paragraph(f"{said} A confusion matrix of {len(labels):,} classes would be too small to read.")]
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(most, matrix.shape), strict=True) if wrong[i, j]]
    if pairs:
        rows: list[Row] = [
            [labels[i], labels[j], int(matrix[i, j]), float(matrix[i, j] / matrix[i].sum())] for i, j in pairs
        ]
        head = ["is", "taken for", "clips", "share of the class"]
        parts.append(table(head, rows, numbers=".1%", caption="What is taken for what, most often first"))
    parts = [element("div", *parts, class_="charts" if len(labels) <= charts.NUMBERED else "")]
    if drawn:
        whole: list[Row] = [[label, *map(int, row)] for label, row in zip(labels, matrix, strict=True)]
        parts.append(more("The whole matrix in numbers", table(["is, taken for", *labels], whole, numbers="d")))
    return Html("".join(parts))


def confused(run: RunFiles) -> Html:
    """The clips whose wrong label is likeliest."""
    heads = run.results["heads"]
    if not heads:
        return paragraph("This run had no labels to classify, so no clip can be mistaken.")
    parts = [
        paragraph(
            "Clips held out that are given a wrong label, the clearest mistakes first. "
            "Listen to them: sometimes it is their own label that is wrong."
        )
    ]
    for column, head in heads.items():
        rows = [
            [element("code", clip["key"]), ", ".join(clip["true"]), clip["predicted"], clip["probability"]]
            for clip in head["most_confused"]
        ]
        parts.append(element("h3", column))
        if rows:
            parts.append(table(["clip", "is", "taken for", "probability"], rows, numbers=".3f"))
        else:
            parts.append(paragraph("None: all clips held out are right."))
    return Html("".join(parts))
