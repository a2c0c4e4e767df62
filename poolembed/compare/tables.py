"""A study in Markdown: ``study.md``."""

from __future__ import annotations

from collections.abc import Sequence

from poolembed.compare.results import Results, Row
from poolembed.compare.statistics import Estimate

NAMES = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "macro_f1": "macro-F1",
    "recall_at_1": "R@1",
    "retrieval_map": "retrieval mAP",
}
"""Of metrics, for people."""

_SPLITS = (("train", "to train"), ("valid", "to validate"), ("test", "to test"))


def markdown(results: Results) -> str:
    """The whole page."""
    parts = [f"# Pooling study: {NAMES[results.metric]}", about(results), main_table(results)]
    if any(row.minus_mean for row in results.rows):
        parts.append("**Bold**: the interval leaves out 0. Of twenty such intervals about one leaves it out by chance.")
    parts.append("![The same as a figure](study.svg)")
    if len(results.metrics) > 1:
        parts += ["## Other metrics", other_table(results)]
    if any(row.search for row in results.rows):
        parts += ["## What the search chose", search_table(results)]
    for title, reasons in (("Left out", results.skipped), ("Failed", results.failures)):
        if reasons:
            parts += [f"## {title}", "\n".join(f"- {name}: {reason}" for name, reason in reasons.items())]
    if results.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in results.notes[:20])]
    return "\n\n".join(parts) + "\n"


def about(results: Results) -> str:
    """What was done, in a paragraph."""
    config = results.config
    splits = " / ".join(str(results.clips[0][split]) for split, _ in _SPLITS)
    purpose = " / ".join(words for _, words in _SPLITS)
    tests = f"{', '.join(results.tests)}, in turn from seed to seed" if len(results.tests) > 1 else results.tests[0]
    pooled = "frame features" if config["pool"] == "features" else "class probabilities of frames"
    labels = f" with {results.labels} labels" if results.labels else ""
    state = "" if results.finished else " **Not finished: the same command goes on.**"
    return (
        f"Pooled are {pooled}, trained by {config['objective']} for {config['epochs']} epochs; {splits} clips {purpose}"
        f"{labels}, tested on {tests}. Values are percentages, mean "
        f"± half the 95 % interval (Student's t over {config['seeds']} seeds); differences from mean pooling are taken "
        f"seed by seed, at the same start of the encoder and the same batches. Spent: {results.budget}; "
        f"{results.seconds / 60:.0f} minutes of one core.{state}"
    )


def main_table(results: Results) -> str:
    """The metric the study is about, with everything that a pooling costs."""
    header = [
        "pooling",
        NAMES[results.metric],
        "minus mean pooling",
        "parameters",
        "training step",
        "pooling step",
        "learned: mean [min .. max]",
    ]
    rows = [
        [
            row.title,
            percent(row.test[results.metric]),
            difference(row.minus_mean.get(results.metric)),
            f"{row.parameters:,}",
            "" if row.training is None else f"{row.training:.2f} x",
            "" if row.pooling is None else f"{row.pooling:.1f} x",
            learned(row),
        ]
        for row in results.rows
    ]
    return table(header, rows)


def other_table(results: Results) -> str:
    """The other metrics, and differences in them."""
    others = results.metrics[1:]
    header = ["pooling", *(text for name in others for text in (NAMES[name], "minus mean"))]
    rows = [
        [
            row.title,
            *(text for name in others for text in (percent(row.test[name]), difference(row.minus_mean.get(name)))),
        ]
        for row in results.rows
    ]
    return table(header, rows)


def search_table(results: Results) -> str:
    """What was chosen, and from what range of validation scores."""
    header = ["pooling", "learning rate", "start", "validation, best", "worst", "final runs, validation"]
    rows = []
    for row in results.rows:
        if row.search:
            start = next((f"{name} = {row.trial[name]:g}" for name in ("alpha", "p") if name in row.trial), "")
            scores = [score for _, score in row.search]
            rate = f"{row.trial['pooling_lr']:g} x"
            rows.append(
                [row.title, rate, start, f"{100 * max(scores):.1f}", f"{100 * min(scores):.1f}", percent(row.valid)]
            )
    return table(header, rows)


def percent(value: Estimate) -> str:
    """``71.3 ± 2.0``."""
    return f"{100 * value.mean:.1f}" + ("" if value.half is None else f" ± {100 * value.half:.1f}")


def difference(value: Estimate | None) -> str:
    """``+2.1 ± 0.9``, bold where it is clear."""
    if value is None:
        return ""
    text = f"{100 * value.mean:+.1f}" + ("" if value.half is None else f" ± {100 * value.half:.1f}")
    return f"**{text}**" if value.clear else text


def learned(row: Row) -> str:
    """``alpha 1.2 [0.0 .. 4.1]``."""
    if row.learned is None:
        return ""
    each = row.learned
    if row.parameters == 1 and each.min == each.max:
        return f"{each.parameter} {each.mean:.2f}"
    return f"{each.parameter} {each.mean:.2f} [{each.min:.2f} .. {each.max:.2f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is words, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in [header, rule, *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
