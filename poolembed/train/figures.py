"""The figures of report.html, drawn by matplotlib as SVG that is part of the page: its colours and its font.

Each role of the page's colours is drawn in a colour that stands for it, which becomes the page's own variable
afterwards, so that one drawing serves light and dark. Labels are users' text, and never read as formulas.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from poolembed.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROLES = {
    "ink": ("#1c2126", "#e7eaed"),
    "muted": ("#5c6670", "#9aa5b1"),
    "line": ("#dde2e7", "#343b43"),
    "paper": ("#ffffff", "#14181c"),
    "panel": ("#f5f7f9", "#1c2126"),
    "blue": ("#1a66ad", "#74b6f2"),
    "orange": ("#b84e00", "#ffa25c"),
    "right": ("#6aa7dc", "#2b6ca3"),
    "wrong": ("#ef9a5a", "#a85a1c"),
}
"""What colours are for: in light, in dark."""

_STAND_INS = {role: f"#{number:02x}fe{number:02x}" for number, role in enumerate(ROLES, 1)}
INK, MUTED, LINE, PAPER, _, BLUE, ORANGE, RIGHT, WRONG = _STAND_INS.values()
_STYLE: dict[str, Any] = {
    **{"svg.fonttype": "none", "font.size": 9.5, "text.parse_math": False, "text.color": INK},
    "font.family": "DejaVu Sans",  # what matplotlib brings; it only measures with it, and few fonts are wider
    **{"axes.facecolor": "none", "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0},
    **{"axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.7, "xtick.color": MUTED, "ytick.color": MUTED},
    **{"legend.frameon": False, "legend.labelcolor": INK},
}
NUMBERED = 25
"""Classes of a confusion matrix whose cells have room for their numbers."""

_LABEL = 28  # characters of a label that a figure shows
Floats = NDArray[np.float64]


def drawn(draw: Callable[[Axes], None], alt: str, width: float = 5.4, height: float = 3.1) -> str:
    """An SVG element, whose ids are its own by its `alt`: what it shows, for those who cannot see it."""
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", {**_STYLE, "svg.hashsalt": alt}]), warnings.catch_warnings():
        # The browser has a font for what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))

    def tag(match: re.Match[str]) -> str:
        text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", match[0].replace("xlink:href", "href"))
        text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
        for role, color in _STAND_INS.items():
            text = text.replace(color, f"var(--{role})")
        return re.sub(r"(font: [^;\"]*?px|font-family:) [^;\"]+", r"\1 var(--font)", text)

    svg = re.sub(r"<[^>]+>", tag, svg[svg.index("<svg") :])
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r' width="([\d.]+)pt"', r' role="img" style="max-width: \1pt"', svg, count=1)
    return svg.replace(">", f"><title>{escape(printable(alt))}</title>", 1)


def curves(
    lines: Mapping[str, Sequence[float | None]], label: str, alt: str, *, best: int = 0, strong: int = 2, band: Any = ()
) -> str:
    """Lines over the epochs.

    Args:
        lines: name -> value of every epoch.
        label: of the y axis.
        alt: what the figure shows.
        best: the epoch to mark, from 1; 0: the lines begin with epoch 0, the start.
        strong: how many of the lines, from the first, are drawn in full; the rest are thin.
        band: the lower and the upper edge of a band behind the lines.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for i, (name, values) in enumerate(lines.items()):
            style: Any = {"ls": "-", "lw": 1.9} if i < strong else {"ls": (0, (1 + i, 2)), "lw": 1.2}
            x, color = np.arange(len(values)) + bool(best), (BLUE, ORANGE, MUTED, INK)[i % 4]
            y = np.array(values, np.float64)
            axes.plot(x, y, color=color, label=printable(name), **style)
            if i < strong and best:
                axes.plot([best], [y[best - 1]], "o", color=color, ms=5)
        if len(band):
            axes.fill_between(x, *band, color=RIGHT, alpha=0.35, lw=0, label="middle 80 %")
        if best:
            axes.axvline(best, color=MUTED, lw=1, ls=(0, (3, 3)), zorder=1, label=f"best: {best}")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch" if best else "epoch (0 is the start)", ylabel=label)
        axes.legend(ncols=1 + (len(lines) > 4))

    return drawn(draw, alt)


def histogram(start: Floats, end: Floats, name: str, alt: str) -> str:
    """Where the values of a pooling parameter were at the start, and are at the end."""

    def draw(axes: Axes) -> None:
        low, high = float(min(start.min(), end.min())), float(max(start.max(), end.max()))
        edges = np.linspace(low, high if high - low > 1e-6 else low + 1, 41).tolist()
        counts, _, _ = axes.hist(end, edges, color=RIGHT, label="end")
        axes.axvline(float(start.mean()), color=ORANGE, lw=1.6, label=f"mean at the start: {start.mean():.3g}")
        if np.ptp(start) > 1e-6:
            axes.hist(start, edges, histtype="step", color=ORANGE, lw=1.6, label="start")
        axes.axvline(float(end.mean()), color=BLUE, lw=1.6, ls=(0, (4, 2)), label=f"mean at the end: {end.mean():.3g}")
        # Room for the legend, and the height of the end: where all start alike a bar of them would dwarf it.
        axes.set(xlabel=name, ylim=(0, 1.45 * float(np.max(counts))))
        axes.legend(loc="upper right")

    return drawn(draw, alt)


def dots(labels: Sequence[str], values: Mapping[str, Floats], name: str, alt: str) -> str:
    """Two values of each class, the first a ring and the second a dot; the largest second on top."""

    def draw(axes: Axes) -> None:
        (ring, first), (dot, second) = values.items()
        order = np.argsort(second, kind="stable")
        y, first, second = np.arange(len(order)), first[order], second[order]
        axes.hlines(y, np.minimum(first, second), np.maximum(first, second), color=MUTED, lw=1.2)
        axes.plot(first, y, "o", mfc=PAPER, mec=ORANGE, mew=1.4, ms=5, label=ring)
        axes.plot(second, y, "o", color=BLUE, ms=5.5, label=dot)
        axes.set_yticks(y, [_short(labels[i]) for i in order], color=INK)
        axes.set(xlabel=name, ylim=(-0.7, len(order) - 0.3))
        axes.grid(axis="y", visible=False)
        axes.figure.legend(loc="outside upper right", ncols=2)

    return drawn(draw, alt, height=1.1 + 0.25 * len(labels))


def confusion(matrix: NDArray[np.int64], labels: Sequence[str], alt: str) -> str:
    """Rows are what clips are, columns what they were taken for; shaded by the share of the row."""
    size, names = len(labels), [_short(label) for label in labels]

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        rows = np.maximum(matrix.sum(1), 1)
        for i, j in np.argwhere(matrix):
            color, shade = RIGHT if i == j else WRONG, 0.2 + 0.8 * float(matrix[i, j] / rows[i])
            axes.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, color=color, alpha=shade, lw=0))
            if size <= NUMBERED:
                axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=9)
        axes.set_yticks(range(size), names, color=INK, fontsize=9.5 if size <= NUMBERED else 8)
        axes.set_xticks(range(size), names, color=INK, fontsize=9.5 if size <= NUMBERED else 8, rotation=90)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", xlabel="taken for", ylabel="is")
        axes.grid(visible=False)

    side = 2.2 + size * (0.42 if size <= NUMBERED else 0.19)
    return drawn(draw, alt, side + 0.4, side)


def _short(label: str) -> str:
    label = printable(label)
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
