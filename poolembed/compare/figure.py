"""A study at a glance: ``study.svg``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from poolembed.compare.results import Results, Row
from poolembed.compare.tables import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, INK, ORANGE, BLUE, GREEN = "#757575", "#222222", "#c75400", "#1f6fb4", "#2c7a4b"
_FAMILIES = {"autopool": ORANGE, "cap": ORANGE, "rap": ORANGE, "gem": BLUE, "attent": GREEN}

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "poolembed",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.left": False,
    "text.color": INK,
}


def svg(results: Results) -> str:
    """Every seed as a dot, means with their intervals, and differences from mean pooling."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = list(reversed(results.rows))  # the first at the top
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 0.9 + 0.32 * len(rows)), facecolor="white", layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_values(left, rows, results.metric)
        _draw_differences(right, rows, results.metric)
        left.set_yticks(range(len(rows)), [row.title for row in rows])
        for tick, row in zip(left.get_yticklabels(), rows, strict=True):
            tick.set_color(_color(row))
        left.set(xlabel=f"{NAMES[results.metric]}, %", ylim=(-0.6, len(rows) - 0.4))
        left.set_title("In the test split (dots: seeds; bars: 95 %)")
        right.set(xlabel="difference, percentage points")
        right.set_title("Minus mean pooling, seed by seed")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw_values(axes: Axes, rows: list[Row], metric: str) -> None:
    for place, row in enumerate(rows):
        value = row.test[metric]
        _bar(axes, place, 100 * value.mean, None if value.half is None else 100 * value.half, _color(row))
        dots = [100 * each for each in value.values]
        axes.plot(dots, [place - 0.24] * len(dots), "o", color=_color(row), markersize=2.6, alpha=0.45, mew=0)
    baseline = next((row for row in rows if not row.minus_mean), None)
    if baseline is not None:
        axes.axvline(100 * baseline.test[metric].mean, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=0)


def _draw_differences(axes: Axes, rows: list[Row], metric: str) -> None:
    axes.axvline(0, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=0)
    for place, row in enumerate(rows):
        value = row.minus_mean.get(metric)
        if value is not None:
            color = _color(row)
            half = None if value.half is None else 100 * value.half
            _bar(axes, place, 100 * value.mean, half, color, filled=value.clear)


def _bar(axes: Axes, place: float, mean: float, half: float | None, color: str, *, filled: bool = True) -> None:
    if half is not None:
        axes.plot([mean - half, mean + half], [place, place], color=color, linewidth=1.6, solid_capstyle="butt")
    axes.plot([mean], [place], "o", color=color, markersize=5.5, mfc=color if filled else "white", mew=1.4)


def _color(row: Row) -> str:
    return next((color for start, color in _FAMILIES.items() if row.name.startswith(start)), INK)
