"""The card of a trained model: the README.md of its bundle."""

from __future__ import annotations

from typing import Any

from poolembed.labels import DataReport
from poolembed.train.config import TrainConfig

_MOST_LABELS = 40


def card(name: str, config: TrainConfig, report: DataReport, results: dict[str, Any]) -> str:
    """Markdown; the first line says in a sentence what the model is, for ``poolembed models``."""
    metric = results["metric"]
    objectives = ", ".join(f"{o.kind} x {o.weight:g}" for o in config.objectives)
    hours = "" if report.hours is None else f", {report.hours:.2f} h"
    lines = [
        f"Trained by `poolembed train` on {report.clips} clips of `{report.source}`: "
        f"{metric['name']} {metric['value']:.3f} on the clips held out.",
        "",
        f"# {name}",
        "",
        f"- **Started from**: {config.init}{', encoder frozen' if config.freeze == 'encoder' else ''}.",
        f"- **Objectives**: {objectives}; pooling of {config.pool}.",
        f"- **Data**: {report.clips} clips{hours}; "
        + ", ".join(f"{split.clips} {which}" for which, split in report.splits.items())
        + f"; {len(report.dropped)} dropped.",
        f"- **Best epoch**: {metric['epoch']} of {results['epochs']}; "
        + ", ".join(f"{key} {value:.4f}" for key, value in results["valid"].items())
        + " (averaged weights, clips held out, which also chose the epoch: no test score).",
    ]
    if config.nested:
        sizes = ", ".join(map(str, sorted(set(config.nested))))
        lines.append(f"- **Nested**: the first {sizes} numbers of an embedding, at unit length, are embeddings too.")
    for pool in results["pooling"]:
        end = sorted(pool["end"])
        lines.append(
            f"- **Pooling of {pool['where']}**: {pool['kind']} per {pool['scope']}; {pool['parameter']} started at "
            f"{pool['start'][0]:g}, ended between {end[0]:.3g} and {end[-1]:.3g}, median {end[len(end) // 2]:.3g}."
        )
    for column, head in results["heads"].items():
        shown = ", ".join(head["labels"][:_MOST_LABELS])
        more = len(head["labels"]) - _MOST_LABELS
        lines.append(f"- **Predicts {column}**: {shown}{f' and {more} more' if more > 0 else ''}.")
    lines += [
        f"- **Seed** {config.seed}; {results['steps']} steps in {results['seconds']:.0f} s on {results['device']} "
        f"in {results['precision']}; `run.toml` beside this repeats the run, `report.html` shows it.",
        "- **Licence**: not stated. It is for who made the clips and trained the model to say.",
        "",
    ]
    return "\n".join(lines)
