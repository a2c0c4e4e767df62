"""``ablations.md`` and ``ablations.json``: what the runs came to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from models.recipe.ablations.variants import FULL, SECTIONS, VARIANTS
from poolembed.compare.statistics import paired
from tests.benchmarks.common import Table

Record = Mapping[str, Any]

PROBES = {"knn": "5-NN", "linear": "linear"}
HELD_OUT = {
    ("mn04-penultimate", "cosine"): "cosine to mn04-penultimate",
    ("mn04-blocks", "cosine"): "to mn04-blocks",
    ("musicnn-jamendo-penultimate", "cosine"): "to musicnn-penultimate",
    ("supcon", "recall_at_1"): "R@1 of supcon",
    ("pitch", "accuracy"): "pitch",
    ("program", "accuracy"): "program",
    ("drum", "accuracy"): "drum",
    ("instruments", "map"): "instruments, mAP",
}
"""What is shown of the metrics of the clips held out; the JSON has all."""


def in_short(record: Record) -> str:
    """A run in a few words: its scores on the dev sets."""
    return ", ".join(f"{name} {value:.1f}" for name, value in _on_dev(record).items())


def write_page(
    target: Path, command: str, about: Mapping[str, Any], done: Mapping[tuple[str, int], Record], same: Sequence[str]
) -> None:
    """Write the page and every single value.

    Args:
        target: path of the files, without suffix.
        command: that made them.
        about: the machine.
        done: what came of the runs, by variant and seed; the full one must be among them.
        same: variants that change nothing of the full run.
    """
    by_name = {name: {seed: done[each, seed] for each, seed in done if each == name} for name, _ in done}
    first = next(iter(by_name[FULL].values()))
    runs = {id(record): record for record in done.values()}.values()  # two variants may have come to one run
    minutes = sum(sum(record["minutes"].values()) for record in runs)
    blocks = [
        "# What each part of the recipe is worth",
        f"Made by `{command}` on: {', '.join(f'{key} {value}' for key, value in about.items())}.",
        f"{len(runs)} runs of {first['steps']:,} steps, each on {first['clips']['train']:,} clips of the corpus, drawn "
        f"at random kind by kind, {first['epochs']} times over; {minutes:.0f} minutes of one core in all, scoring "
        "included. " + _how_to_read(by_name),
        _table("Dev sets, %", by_name, _on_dev).markdown(),
        _table(f"{first['clips']['valid']:,} clips of held-out packages, %", by_name, _held_out).markdown(),
        *_remarks(by_name, same),
    ]
    _write(target.with_suffix(".md"), "\n\n".join(blocks) + "\n")
    variants = {name: {"change": asdict(VARIANTS[name]), "seeds": seeds} for name, seeds in by_name.items()}
    saved = {"command": command, "machine": about, "minutes": minutes, "as full": list(same), "variants": variants}
    _write(target.with_suffix(".json"), json.dumps(saved, indent=1) + "\n")


def _how_to_read(by_name: Mapping[str, Mapping[int, Record]]) -> str:
    seeds = by_name[FULL].keys()
    if len(seeds) == 1:
        return "In brackets: the difference from the full run; one seed, so small ones say nothing."
    told = f"The full run's ± is the standard deviation over its {len(seeds)} seeds: what chance does to one run."
    told += " In brackets: the difference from its mean"
    if any(others.keys() == seeds for name, others in by_name.items() if name != FULL):
        told += ", with the 95 % interval of the differences seed by seed where a row has as many"
    return told + "."


def _on_dev(record: Record) -> dict[str, float]:
    """Accuracy, or mAP where clips have several labels, in percent, of both probes on each set; and the mean of all."""
    scores = {
        f"{name} {shown}": 100 * next(iter(found[probe].values()))["value"]
        for name, found in record["dev"].items()
        for probe, shown in PROBES.items()
    }
    return {**scores, "mean": fmean(scores.values())}


def _held_out(record: Record) -> dict[str, float]:
    """Some of the metrics on clips held out, in percent; those that the run has."""
    return {
        shown: 100 * value
        for (objective, metric), shown in HELD_OUT.items()
        if (value := record["valid"].get(objective, {}).get(metric)) is not None
    }


def _table(
    title: str, by_name: Mapping[str, Mapping[int, Record]], values: Callable[[Record], dict[str, float]]
) -> Table:
    """A row for each variant, below the name of its section."""
    found = {name: {seed: values(record) for seed, record in seeds.items()} for name, seeds in by_name.items()}
    columns = list(next(iter(found[FULL].values())))
    table = Table(title, ["", *columns])
    section = ""
    for name, seeds in found.items():
        first, _, rest = name.partition("-")
        if first != section and rest:
            table.add(f"**{SECTIONS[first]}**", *[""] * len(columns))
            section = first
        table.add(rest or name, *(_cell(column, seeds, None if name == FULL else found[FULL]) for column in columns))
    return table


def _cell(column: str, seeds: Mapping[int, dict[str, float]], full: Mapping[int, dict[str, float]] | None) -> str:
    """Mean over seeds; in brackets how far it is from the full run's, or after that one's its deviation."""
    values = {seed: scores[column] for seed, scores in seeds.items() if column in scores}
    if not values:
        return "-"
    mean = fmean(values.values())
    if full is None:
        return f"{mean:.1f}{f' ± {stdev(values.values()):.1f}' if len(values) > 1 else ''}"
    baseline = {seed: scores[column] for seed, scores in full.items() if column in scores}
    if not baseline:
        return f"{mean:.1f}"
    # From the full run's mean over its seeds: one seed's own luck would be in every difference.
    difference = paired(values, baseline) if values.keys() == baseline.keys() else None
    half = "" if difference is None or difference.half is None else f" ± {difference.half:.1f}"
    return f"{mean:.1f} ({mean - fmean(baseline.values()):+.1f}{half})"


def _remarks(by_name: Mapping[str, Mapping[int, Record]], same: Sequence[str]) -> Iterator[str]:
    if any("supcon" in record["valid"] for record in by_name[FULL].values()):
        yield "Where supcon is left out, a step sees one crop of each clip; otherwise two, one of them of a clip alike."
    if "loss-distillation" in by_name:
        yield "Without distillation, clips without any label would teach nothing: others are in their place."
    steps = {name: {record["steps"] for record in seeds.values()} for name, seeds in by_name.items()}
    seeds = {name: len(found) for name, found in by_name.items() if name != FULL}
    if len({*seeds.values()}) > 1:
        more = [f"{name} {count}" for name, count in seeds.items() if count > min(seeds.values())]
        yield f"Rows are of {min(seeds.values())} seed(s); of more: {', '.join(more)}."
    if other := [f"{name}: {sorted(counts)}" for name, counts in steps.items() if counts != steps[FULL]]:
        yield f"Runs of other lengths, in steps: {', '.join(other)}."
    untaught = {
        name: sorted({objective for record in seeds.values() for objective in record["untaught"]})
        for name, seeds in by_name.items()
    }
    if gone := [f"{name}: {', '.join(objectives)}" for name, objectives in untaught.items() if objectives]:
        yield f"Losses that went too, as no clip was left to learn them from: {'; '.join(gone)}."
    if same:
        yield f"Not run, for it changes nothing of the full run: {', '.join(same)}."


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
