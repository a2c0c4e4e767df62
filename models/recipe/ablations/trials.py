"""One run: trained as ``poolembed train`` does it, scored, and written down; `poolembed.compare.workers` does many."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from models.recipe.ablations.variants import objective_name
from models.recipe.dev import Dev
from poolembed import bundle
from poolembed.embed.model import build_engine
from poolembed.errors import TrainingError
from poolembed.evaluate.clips import embed_clips
from poolembed.evaluate.scores import score
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import RUN
from poolembed.train.run import train

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
"""Of the processes that do the runs."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        config: all that it is told; its output directory is in WORK, called by the run's key.
        untaught: objectives left out because no clip is left to learn them from.
    """

    config: TrainConfig
    untaught: tuple[str, ...]

    @property
    def record(self) -> Path:
        """Where what came of it is kept."""
        output = Path(self.config.output)
        return output.parent.parent / "results" / f"{output.name}.json"


def perform(job: Job, devs: Sequence[Dev]) -> dict[str, Any]:
    """What came of a run, which is done unless it was before, and goes on from its checkpoint if it was cut off.

    Args:
        job: the run.
        devs: what to score it on.

    Raises:
        PoolembedError: it failed.
    """
    record = read_record(job.record)
    if record is not None and record["dev"].keys() >= {dev.name for dev in devs}:
        return record
    output = Path(job.config.output)
    results = train(job.config, resume=(output / RUN).exists(), report=False).results
    began = time.perf_counter()
    engine = build_engine(bundle.load_bundle(output).network, workers=1)
    scores = {}
    for dev in devs:
        embedded = embed_clips(engine, dev.clips)
        if embedded.failures:
            raise TrainingError(f"clips of {dev.name} cannot be embedded: {embedded.failures}")
        with threadpool_limits(1):
            scores[dev.name] = asdict(score(embedded.matrix, dev.task))
        del scores[dev.name]["per_class"]
    record = {
        "valid": by_objective(job.config, results),
        "dev": scores,
        "untaught": job.untaught,
        **{name: results[name] for name in ("steps", "epochs", "parameters", "clips_per_second")},
        "clips": {name: split["clips"] for name, split in results["data"]["splits"].items()},
        "minutes": {"training": results["seconds"] / 60, "scoring": (time.perf_counter() - began) / 60},
    }
    job.record.parent.mkdir(exist_ok=True)
    partial = job.record.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(job.record)
    return record


def read_record(file: Path) -> dict[str, Any] | None:
    """What came of a run, None if it is not done."""
    if not file.exists():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def by_objective(config: TrainConfig, results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The metrics of a run on the clips held out, by `objective_name` and metric.

    A run calls a metric by its name alone for the first objective that has it, whichever that is.
    """
    found: dict[str, dict[str, float]] = {}
    seen = set()
    for objective in config.objectives:
        if objective.kind == "classification":
            multi = results["heads"][objective.column]["multi_label"]
            metrics = ["map", "macro_f1"] if multi else ["macro_f1", "accuracy"]
        else:
            metrics = ["cosine" if objective.kind == "distill" else "recall_at_1"]
        about = Path(objective.targets).name if objective.targets else objective.column
        for metric in metrics:
            called = f"{metric} of {objective.kind} of {about}" if metric in seen else metric
            seen.add(metric)
            if called in results["valid"]:
                found.setdefault(objective_name(objective), {})[metric] = results["valid"][called]
    return found
