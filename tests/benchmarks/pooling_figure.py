"""Draw the README's figure of temporal pooling, with the project's own decoder, front end and pooling layers.

python -m tests.benchmarks.pooling_figure          # -> tests/benchmarks/results/pooling.svg

The feature is real: how loud one mel band of a drum loop is over time, scaled so that its mean is 1.
"""
# ruff: noqa: RUF001 - Greek letters and minus signs are meant

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from poolembed.audio.source import open_source
from poolembed.nn.config import FrontendConfig
from poolembed.nn.frontend import LogMel, mel_filterbank
from poolembed.nn.pooling import AutoPool, GeMPool, MaxPool, MeanPool, TemporalPool
from tests.benchmarks.common import CLIPS, RESULTS

CLIP, SECONDS, BAND = CLIPS / "drums" / "breakbeat.mp3", 1.9, 30
WINDOWS = 4
TOP = 5.0

GREY, INK, ORANGE, BLUE = "#757575", "#222222", "#c75400", "#1f6fb4"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "poolembed",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "path.simplify_threshold": 0.2,
}


def frame_feature() -> tuple[NDArray[np.float64], torch.Tensor]:
    """Times in seconds, and the feature ``(1, 1, T)``."""
    config = FrontendConfig()
    frontend = LogMel(config, mel_filterbank(config))
    with open_source(str(CLIP), config.sample_rate) as source:
        samples = np.concatenate(list(source.blocks()))[: round(SECONDS * config.sample_rate)]
    loudness = frontend(torch.from_numpy(samples).unsqueeze(0))[0, :, BAND]
    feature = (loudness - loudness.quantile(0.2)).clamp_min(0)
    feature = feature / feature.mean()
    times = (np.arange(len(feature)) * config.hop_length + config.n_fft / 2) / config.sample_rate
    return times, feature.reshape(1, 1, -1)


def draw_feature(axes: Axes, times: NDArray[np.float64], feature: torch.Tensor) -> None:
    """The feature over time, and what each layer makes of it."""
    values = feature.flatten().numpy()
    axes.fill_between(times, values, color="#dfe6ec", linewidth=0)
    axes.plot(times, values, color=INK, linewidth=1.2)
    axes.set(xlim=(0, times[-1]), ylim=(0, TOP), xlabel="seconds", ylabel="one frame feature (its mean is 1)")
    axes.set_title("Many frames, one number (here: a mel band of a drum loop)")
    axes.set_xticks([0, 0.5, 1, 1.5])
    lines: list[tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = [
        ("max", MaxPool(), GREY),
        ("AutoPool α = 2", AutoPool(alpha=2.0), ORANGE),
        ("AutoPool α = 1", AutoPool(alpha=1.0), ORANGE),
        ("GeM p = 3", GeMPool(p=3.0), BLUE),
        ("mean", MeanPool(), GREY),
    ]
    for name, pool, color in lines:
        y = float(pool(feature))
        axes.axhline(y, color=color, linewidth=1.4, dashes=(4, 2))
        axes.annotate(
            f"{name}: {y:.2f}", (1.02, y), xycoords=axes.get_yaxis_transform(), color=color, va="center", fontsize=8.5
        )


def draw_range(
    axes: Axes,
    feature: torch.Tensor,
    layer: Callable[[float], TemporalPool[Any]],
    start: float,
    half: float,
    marked: tuple[float, str],
    color: str,
) -> None:
    """The pooled value against the trained parameter, over the whole of its range.

    Args:
        axes: where.
        feature: to pool.
        layer: makes the layer of a parameter.
        start: where the range starts; it ends at infinity, which is drawn at 1.
        half: this much above the start is drawn at 1/2.
        marked: a parameter, and what to say about it.
        color: of the curve.
    """

    def place(parameter: float) -> float:
        return 1.0 if np.isinf(parameter) else (parameter - start) / (parameter - start + half)

    for name, end, offset in (("max", MaxPool(), 4), ("mean", MeanPool(), -11)):
        y = float(end(feature))
        axes.axhline(y, color=GREY, linewidth=1, dashes=(4, 2))
        axes.annotate(
            name, (0.02, y), (0, offset), axes.get_yaxis_transform(), "offset points", color=GREY, fontsize=8.5
        )
    places = np.linspace(0, 1, 50)
    parameters = [start + half * x / (1 - x) for x in places[:-1]] + [np.inf]
    values = [float(layer(parameter)(feature)) for parameter in parameters]
    axes.plot(places, values, color=color, linewidth=2, clip_on=False)
    ticks = [start, *(tick for tick in (0.3, 1, 3, 10, 30) if tick > start and place(tick) < 0.92), np.inf]
    axes.set_xticks([place(tick) for tick in ticks], ["∞" if np.isinf(tick) else f"{tick:g}" for tick in ticks])
    axes.set(xlim=(0, 1), ylim=(0, TOP))
    axes.tick_params(left=False, labelleft=False)
    mark(axes, place(marked[0]), float(layer(marked[0])(feature)), marked[1], color)


def mark(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    axes.plot([x], [y], "o", color=color, markersize=6, clip_on=False)
    axes.annotate(text, (x, y), (8, -4), textcoords="offset points", va="top", fontsize=8.5, color=color)


def draw_merging(axes: Axes, feature: torch.Tensor) -> None:
    """Windows, their states, the merged state, and the vector; with the numbers of this feature."""
    pool = AutoPool(alpha=1.0)
    axes.set(xlim=(0, 100), ylim=(0, 10))
    axes.set_axis_off()
    axes.set_title("Any length, in windows: fold each, merge the states, finalize once", y=1.0)
    windows = torch.tensor_split(feature, WINDOWS, dim=-1)
    states = [pool.fold(window) for window in windows]
    merged = states[0]
    for state in states[1:]:
        merged = pool.merge(merged, state)
    whole = float(pool(feature))
    assert abs(float(pool.finalize(merged)) - whole) < 1e-5

    def box(x: float, y: float, text: str, color: str) -> None:
        style = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": color, "linewidth": 1.2}
        axes.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=style, linespacing=1.35)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0})

    def numbers(state: tuple[torch.Tensor, ...]) -> str:
        return "\n".join(f"{name} = {float(part):.2f}" for name, part in zip("MZN", state, strict=True))

    for i, (window, state) in enumerate(zip(windows, states, strict=True)):
        left, width = 1 + 14 * i, 12
        values = window.flatten().numpy()
        x = left + width * np.arange(len(values)) / (len(values) - 1)
        axes.fill_between(x, 7, 7 + values / TOP * 2.8, color="#dfe6ec", linewidth=0)
        axes.plot(x, 7 + values / TOP * 2.8, color=INK, linewidth=0.9)
        axes.plot([left, left + width], [7, 7], color=GREY, linewidth=0.8)
        arrow((left + width / 2, 6.7), (left + width / 2, 5.0))
        axes.text(left + width / 2 + 0.8, 5.9, "fold", fontsize=8.5, color=GREY, va="center")
        box(left + width / 2, 3.0, numbers(state), ORANGE)
        if i + 1 < WINDOWS:
            axes.text(left + width + 1, 3.0, "+", ha="center", va="center", fontsize=11, color=GREY)
    arrow((54.5, 3.0), (62.5, 3.0))
    axes.text(58.5, 3.6, "merge", fontsize=8.5, color=GREY, ha="center")
    box(68.5, 3.0, numbers(merged), ORANGE)
    arrow((74.5, 3.0), (83, 3.0))
    axes.text(78.7, 3.6, "finalize", fontsize=8.5, color=GREY, ha="center")
    box(90.5, 3.0, f"N / Z = {float(pool.finalize(merged)):.2f}", INK)
    axes.text(90.5, 0.9, f"all frames at once: {whole:.2f}", fontsize=8.5, color=GREY, ha="center", va="center")
    axes.text(
        60.5, 8.4, "A state has one size, however long the song:\nAutoPool keeps M = max x,  Z = Σ exp(α(x − M)),"
        "\nN = Σ x exp(α(x − M)); merging is associative.", fontsize=8.5, va="center", linespacing=1.4,
    )  # fmt: skip


def shortened(svg: str) -> str:
    """Two decimals (hundredths of a point), short names of glyphs, no indentation: a third less to load."""

    def rounded(places: re.Match[str]) -> str:
        return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", places[0])

    svg = svg.replace("DejaVuSans-", "g")
    svg = re.sub(r' d="[^"]*"|translate\([^)]*\)| [xy]="[^"]*"', rounded, svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


@torch.no_grad()
def main() -> None:
    times, feature = frame_feature()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 6.1), facecolor="white")
        places = figure.add_gridspec(2, 3, width_ratios=(2.1, 1, 1), height_ratios=(1.55, 1))
        figure.subplots_adjust(left=0.055, right=0.985, top=0.95, bottom=0.02, hspace=0.36, wspace=0.1)
        left, middle, right = (figure.add_subplot(places[0, i]) for i in range(3))
        draw_feature(left, times, feature)
        place = left.get_position()
        left.set_position((place.x0, place.y0, place.width - 0.125, place.height))

        draw_range(middle, feature, lambda alpha: AutoPool(alpha=alpha), 0, 1, (1, "α = 1:\nsoftmax"), ORANGE)
        middle.set(title="AutoPool learns α", xlabel="α")
        draw_range(right, feature, lambda p: GeMPool(p=p), 1, 4, (3, "p = 3: where\nlearning starts"), BLUE)
        right.set(title="GeM learns p", xlabel="p")
        draw_merging(figure.add_subplot(places[1, :]), feature)
        RESULTS.mkdir(exist_ok=True)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    (RESULTS / "pooling.svg").write_text(shortened(buffer.getvalue()), encoding="utf-8")
    print(RESULTS.name + "/pooling.svg")


if __name__ == "__main__":
    main()
