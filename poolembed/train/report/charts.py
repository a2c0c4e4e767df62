"""The charts of report.html, drawn by matplotlib as SVG that is part of the page: its colours and its font.

Text stays text. Each role of the page's colours is drawn in a colour that stands for it, which becomes the page's own
variable afterwards, so that one drawing serves light and dark. Labels are users' text, and drawn as such, never as the
formulas that matplotlib would read in ``$``.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from poolembed.text import printable
from poolembed.train.report.page import ROLES, Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STAND_INS = {role: f"#{number:02x}fe{number:02x}" for number, role in enumerate(ROLES, 1)}
Floats = NDArray[np.float64]

INK, MUTED, LINE, PAPER = (_STAND_INS[role] for role in ("ink", "muted", "line", "paper"))
BLUE, ORANGE, VIOLET = (_STAND_INS[role] for role in ("blue", "orange", "violet"))
RIGHT, WRONG = _STAND_INS["right"], _STAND_INS["wrong"]

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "poolembed",
    "font.family": "DejaVu Sans",  # what matplotlib brings; it only measures with it, and few fonts are wider
    "font.size": 9.5,
    "text.parse_math": False,
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}

DRAWN = 60
"""Classes that a chart can show."""

NUMBERED = 25
"""Classes of a confusion matrix whose cells have room for their numbers."""

LABEL = 28
"""Characters of a label that a chart shows."""


def drawn(draw: Callable[[Axes], None], alt: str, *, width: float = 5.4, height: float = 3.1) -> Html:
    """An SVG element.

    Args:
        draw: draws on the axes.
        alt: what the chart shows, for those who cannot see it.
        width: in inches, at which text has its own size.
        height: in inches.
    """
    return _figure(lambda figure: draw(figure.add_subplot()), alt, width, height)


def _figure(draw: Callable[[Figure], None], alt: str, width: float, height: float) -> Html:
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # The browser has a font for what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), alt)


def _inline(svg: str, alt: str) -> Html:
    """matplotlib's file as an element of a page: no metadata, ids of its own, the page's colours and font."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    prefix = f"c{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"

    def tag(match: re.Match[str]) -> str:
        text = match[0].replace("xlink:href", "href")
        text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
        text = re.sub(r' id="([^"]*)"', lambda id: f' id="{prefix}{id[1]}"' if id[1] in used else "", text)
        text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", text)
        for role, color in _STAND_INS.items():
            text = text.replace(color, f"var(--{role})")
        return re.sub(r"(font: [^;\"]*?px|font-family:) [^;\"]+", r"\1 var(--font)", text)

    svg = re.sub(r"<[^>]+>", tag, svg)
    svg = re.sub(r'<svg ([^>]*?)width="([\d.]+)pt"', r'<svg role="img" style="max-width: \2pt" \1', svg, count=1)
    svg = re.sub(r'^(<svg [^>]*?)height="[\d.]+pt" ?', r"\1", svg, count=1)
    return Html(re.sub(r"\s*\n\s*", "\n", svg).replace(">", f"><title>{_escaped(alt)}</title>", 1))


def _escaped(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _short(label: str) -> str:
    label = printable(label)
    return label if len(label) <= LABEL else label[: LABEL - 1] + "…"


def curves(lines: Mapping[str, Sequence[float | None]], best: int, alt: str, *, label: str, strong: int = 2) -> Html:
    """Lines over the epochs, the best epoch marked.

    Args:
        lines: name -> value of every epoch, from the first.
        best: number of the best epoch; 0 for none.
        alt: what the chart shows.
        label: of the y axis.
        strong: how many of the lines, from the first, are drawn in full; the rest are thin.
    """
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for i, (name, values) in enumerate(lines.items()):
            y = _floats(values)
            x = np.arange(1, len(y) + 1)
            full = i < strong
            color = (BLUE, ORANGE, VIOLET, MUTED, INK)[min(i, 4)]
            style: Any = "-" if full else (0, (1 + i, 2))
            marker = "o" if len(y) == 1 else ""
            axes.plot(x, y, color=color, lw=1.9 if full else 1.2, ls=style, marker=marker, ms=4, label=printable(name))
            if full and 0 < best <= len(y):
                axes.plot([best], [y[best - 1]], "o", color=color, ms=5)
        if best:
            axes.axvline(best, color=MUTED, lw=1, ls=(0, (3, 3)), zorder=1)
            axes.annotate(
                f"best: {best}", (best, 1), (0, 3), axes.get_xaxis_transform(), "offset points",
                ha="center", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch", ylabel=label)
        if len(lines) > 1:
            axes.legend()

    return drawn(draw, alt)


def panels(lines: Mapping[str, Sequence[float | None]], best: int, alt: str, *, columns: int = 4) -> Html:
    """Lines over the epochs, more than one chart could hold: each on axes of its own, under its name.

    Args:
        lines: name -> value of every epoch, from the first.
        best: number of the best epoch; 0 for none.
        alt: what the charts show.
        columns: panels in a row.
    """
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(lines) // columns)

    def draw(figure: Figure) -> None:
        for place, (name, values) in enumerate(lines.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            y = _floats(values)
            axes.plot(np.arange(1, len(y) + 1), y, color=BLUE, lw=1.6, marker="o" if len(y) == 1 else "", ms=4)
            if best:
                axes.axvline(best, color=MUTED, lw=1, ls=(0, (3, 3)), zorder=1)
            axes.set_title("\n".join(_short(line) for line in wrap(name, LABEL)), fontsize=9, color=INK)
            axes.tick_params(labelsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
            axes.yaxis.set_major_locator(MaxNLocator(4))

    return _figure(draw, alt, 2.7 * min(columns, len(lines)), 1.95 * rows)


def histogram(start: Floats, end: Floats, name: str, each: str, alt: str) -> Html:
    """Where the values of a pooling parameter were at the start, and are at the end."""

    def draw(axes: Axes) -> None:
        low, high = float(min(start.min(), end.min())), float(max(start.max(), end.max()))
        if high - low < 1e-6:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 41).tolist()
        counts, _, _ = axes.hist(end, edges, color=RIGHT, label="end")
        if np.ptp(start) < 1e-6:
            axes.axvline(start[0], color=ORANGE, lw=1.6, label=f"start: all at {start[0]:.3g}")
        else:
            axes.hist(start, edges, histtype="step", color=ORANGE, lw=1.6, label="start")
        axes.axvline(float(end.mean()), color=BLUE, lw=1.6, ls=(0, (4, 2)), label=f"mean at the end: {end.mean():.3g}")
        # Room for the legend, and the height of the end: where all start alike a bar of them would dwarf it.
        axes.set(
            xlabel=name, ylabel="classes" if each == "class" else f"{each}s", ylim=(0, 1.45 * float(np.max(counts)))
        )
        axes.legend(loc="upper right")

    return drawn(draw, alt)


def course(quantiles: Mapping[str, Sequence[float]], name: str, alt: str) -> Html:
    """A pooling parameter over the epochs: its mean, and how it spreads.

    Args:
        quantiles: mean, min, q10, q50, q90 and max of every epoch, from 0, the start.
        name: of the parameter.
        alt: what the chart shows.
    """
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        values = {key: _floats(row) for key, row in quantiles.items()}
        x = np.arange(len(values["mean"]))
        if np.nanmax(values["max"] - values["min"]) > 0:
            # Smallest and largest are in the table: on the axes they would press all others flat.
            axes.fill_between(x, values["q10"], values["q90"], color=RIGHT, alpha=0.35, lw=0, label="middle 80 %")
            axes.plot(x, values["q50"], color=ORANGE, lw=1.4, ls=(0, (4, 2)), label="median")
        axes.plot(x, values["mean"], color=BLUE, lw=1.9, label="mean")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch (0 is the start)", ylabel=name, xlim=(0, max(len(x) - 1, 1)))
        if len(axes.get_lines()) > 1:
            axes.legend(loc="best")

    return drawn(draw, alt)


def moves(labels: Sequence[str], start: Floats, end: Floats, name: str, alt: str) -> Html:
    """Where the parameter of each class went, from a ring to a dot; the largest on top."""

    def draw(axes: Axes) -> None:
        order = np.argsort(end, kind="stable")
        y = np.arange(len(order))
        before, after = start[order], end[order]
        axes.hlines(y, np.minimum(before, after), np.maximum(before, after), color=MUTED, lw=1.2)
        axes.plot(before, y, "o", mfc=PAPER, mec=ORANGE, mew=1.4, ms=5, ls="", label="start")
        axes.plot(after, y, "o", color=BLUE, ms=5.5, ls="", label="end")
        axes.set_yticks(y, [_short(labels[i]) for i in order], color=INK)
        axes.set(xlabel=name, ylim=(-0.7, len(order) - 0.3))
        axes.grid(axis="y", visible=False)
        axes.figure.legend(loc="outside upper right", ncols=2)

    return drawn(draw, alt, height=1.1 + 0.25 * len(labels))


def confusion(matrix: NDArray[np.int64], labels: Sequence[str], alt: str) -> Html:
    """Rows are what clips are, columns what they were taken for; shaded by the share of the row."""
    from matplotlib.patches import Rectangle

    size = len(labels)

    def draw(axes: Axes) -> None:
        rows = np.maximum(matrix.sum(1, keepdims=True), 1)
        for i, j in np.argwhere(matrix):
            share = float(matrix[i, j] / rows[i, 0])
            color = RIGHT if i == j else WRONG
            axes.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, color=color, alpha=0.2 + 0.8 * share, lw=0))
            if size <= NUMBERED:
                axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9)
        names = [_short(label) for label in labels]
        small, rotation = (9.5, 45) if size <= NUMBERED else (8, 90)
        axes.set_yticks(range(size), names, color=INK, fontsize=small)
        axes.set_xticks(
            range(size), names, color=INK, fontsize=small,
            rotation=rotation, rotation_mode="anchor", ha="right", va="center" if rotation == 90 else "top",
        )  # fmt: skip
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="taken for", ylabel="is")
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(visible=False)
        axes.grid(which="minor")
        axes.spines[:].set_visible(False)

    side = 2.2 + size * (0.42 if size <= NUMBERED else 0.19)
    return drawn(draw, alt, width=side + 0.4, height=side)


def average_precisions(
    labels: Sequence[str], values: Sequence[float | None], chance: Sequence[float], alt: str
) -> Html:
    """A bar per class, best on top, and a tick where a random order would be."""

    def draw(axes: Axes) -> None:
        scores = np.nan_to_num(_floats(values))
        order = np.argsort(scores, kind="stable")
        y = np.arange(len(order))
        axes.barh(y, scores[order], color=RIGHT, height=0.68)
        axes.plot(_floats(chance)[order], y, "|", color=ORANGE, ms=11, mew=2, ls="", label="a random order")
        axes.set_yticks(y, [_short(labels[i]) for i in order], color=INK)
        axes.set(xlabel="average precision", xlim=(0, 1), ylim=(-0.7, len(order) - 0.3))
        axes.grid(axis="y", visible=False)
        axes.figure.legend(loc="outside upper right")

    return drawn(draw, alt, width=7.2, height=1.1 + 0.22 * len(labels))


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], np.float64)
