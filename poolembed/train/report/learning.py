"""How training went: the summary on top of the page, and loss and metrics of every epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from poolembed.train.config import TrainConfig
from poolembed.train.report import charts
from poolembed.train.report.files import RunFiles
from poolembed.train.report.page import Html, element, figure, more, number, paragraph, table

METRICS = {
    "accuracy": ("accuracy", "the share of clips whose label is right"),
    "macro_f1": ("macro F1", "the F1 score, averaged over the classes, rare ones counting as much as others"),
    "map": ("mAP", "average precision, averaged over the classes"),
    "recall_at_1": ("R@1", "the share of clips whose nearest other clip belongs with them"),
    "cosine": ("cosine", "the mean cosine between what is made of a clip and its target"),
    "loss": ("loss", ""),
}

BESIDES = 3
"""Parts of the loss, and further measures, that have room in the chart of what they belong to."""


def titled(metric: str) -> str:
    """What a metric is called on the page; "accuracy of genre" keeps its column."""
    name, of, column = metric.partition(" of ")
    return METRICS.get(name, (name, ""))[0] + of + column


def summary(run: RunFiles) -> Html:
    """What was trained, and the figures that one looks for first."""
    results, metric = run.results, run.results["metric"]
    measure = titled(metric["name"])
    meaning = METRICS.get(metric["name"].partition(" of ")[0], ("", ""))[1]
    lead = element(
        "p",
        "Trained on ",
        element("code", results["data"]["source"]),
        f" for {_objectives(run.config)}; measured by {measure}" + (f": {meaning}." if meaning else "."),
        class_="muted",
    )
    tiles = [
        (
            measure,
            number(metric["value"], ".3f"),
            f"on {run.held_out:,} clips held out, at epoch {metric['epoch']} of {results['epochs']}",
        ),
        ("trained for", _duration(results["seconds"]), f"{results['epochs']:,} epochs, {results['steps']:,} steps"),
        (
            "speed",
            f"{results['clips_per_second']:,.0f} clips/s",
            f"on {results['device']} in {results['precision']}, {results['waiting']:.1%} of it waiting for data",
        ),
        ("parameters", _millions(results["parameters"]), _start(run.config)),
    ]
    shown = (
        element("div", element("dt", name), element("dd", value, element("small", of))) for name, value, of in tiles
    )
    return Html(lead + element("dl", *shown, class_="tiles"))


def learning(run: RunFiles) -> Html:
    """Curves, and the numbers behind them."""
    history, metric, best = run.history, run.results["metric"], run.results["metric"]["epoch"]
    terms = [term for term in history[0]["train"] if term != "loss"]
    columns = {"training": _column(run, "train", "loss")}
    if "loss" in history[0]["valid"]:
        columns["held out"] = _column(run, "valid", "loss")
    # A single term is the loss itself, but for its weight.
    parts = {term: _column(run, "train", term) for term in terms} if len(terms) > 1 else {}
    title = titled(metric["name"])
    names = [name for name in history[0]["valid"] if name not in ("loss", metric["name"])]
    chosen = {title: _column(run, "valid", metric["name"])}
    others = {titled(name): _column(run, "valid", name) for name in names}
    losses, loss_panels = _divided(columns, parts)
    measures, measure_panels = _divided(chosen, others)
    pictures = [
        figure(charts.curves(losses, best, "Loss after every epoch", label="loss"), "Loss after every epoch."),
        figure(
            charts.curves(measures, best, f"{title} after every epoch", label="of the clips held out", strong=1),
            f"{title} is best at epoch {best}, with {number(metric['value'], '.3f')}; those weights were kept.",
        ),
    ]
    wide = [
        figure(charts.panels(lines, best, said), f"{said}.")
        for lines, said in (
            (loss_panels, "The parts of the training loss, before their weights"),
            (measure_panels, "What else was measured on the clips held out"),
        )
        if lines
    ]
    columns |= parts
    measured = chosen | others
    head = ["epoch", *(f"loss, {name}" for name in columns), *measured, "learning rate", "seconds"]
    rows = [
        [
            record["epoch"],
            *(values[i] for values in (*columns.values(), *measured.values())),
            f"{record['lr']:.1e}",
            f"{record['seconds']:.1f}",
        ]
        for i, record in enumerate(history)
    ]
    said = (
        "After every epoch the averaged weights are measured on the clips held out. The same clips chose the best "
        "epoch, so expect a little less on new ones."
    )
    numbers = table(head, rows, numbers=".4f", best=best - 1)
    shown = element("div", *pictures, class_="charts") + "".join(wide)
    return Html(paragraph(said) + shown + more("Every epoch in numbers", numbers))


def _divided(
    first: dict[str, list[float | None]], others: dict[str, list[float | None]]
) -> tuple[dict[str, list[float | None]], dict[str, list[float | None]]]:
    """What goes in one chart, and what in panels of its own: a chart of more lines could not be read."""
    return (first | others, {}) if len(others) <= BESIDES else (first, others)


def _column(run: RunFiles, side: str, name: str) -> list[float | None]:
    values: list[Any] = [record[side].get(name) for record in run.history]
    return values


def _objectives(config: TrainConfig) -> str:
    counts = Counter(objective.kind for objective in config.objectives)
    names = [kind if count == 1 else f"{kind} ({count} times)" for kind, count in counts.items()]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _start(config: TrainConfig) -> str:
    start = "from scratch" if config.init == "scratch" else f"starting from {config.init}"
    return f"{start}, encoder frozen" if config.freeze == "encoder" else start


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
