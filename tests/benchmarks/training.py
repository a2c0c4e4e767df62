"""Training's loop against the same model on random tensors in memory, and what a frozen encoder saves.

python -m tests.benchmarks.training LABELS [--epochs 3] [--rounds 3] [--batch-size 32]

LABELS is a folder or table of labelled clips, as `poolembed train` takes it. Once its clips are cached, three loops run
in turn, several rounds of them, all through `poolembed.train.trainer.fit` with the model base: on the clips, on random
tensors of the same shape, and on the stored features of a frozen encoder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from poolembed.progress import silent
from poolembed.train.config import AugmentConfig, TrainConfig
from poolembed.train.dataset import load_dataset
from poolembed.train.loading import Loader
from poolembed.train.module import Inputs
from poolembed.train.processes import Processes
from poolembed.train.run import Run
from poolembed.train.sampling import Prefetcher
from poolembed.train.start import start_model
from poolembed.train.trainer import Batches, EpochRecord, Plan, fit
from tests.benchmarks.common import Table, machine, middle, report, say


class InMemory:
    """One random batch like another loader's, again and again: what a loop could do at best."""

    def __init__(self, loader: Loader) -> None:
        self.steps_per_epoch = loader.steps_per_epoch
        with loader.prefetch(0, 1) as batches:
            like = loader.inputs(next(batches), 0)
        assert isinstance(like.features, torch.Tensor)
        self._inputs = Inputs(torch.randn_like(like.features), like.frames, like.clips)

    def prefetch(self, first: int, last: int) -> Prefetcher[int]:
        return Prefetcher(lambda step: step, range(first, last))

    def inputs(self, batch: int, step: int) -> Inputs:
        return self._inputs


def loop(run: Run, loader: Batches, config: TrainConfig) -> list[EpochRecord]:
    """The epochs of a run without validation."""
    events: list[Plan | EpochRecord] = []
    fit(
        run.module,
        loader,
        lambda _: {"none": 0.0},
        config,
        names=run.objectives.parts,
        metric="none",
        pooling_lr=1.0,
        identity="",
        progress=silent,
        on_event=events.append,
        processes=run.where,
    )
    return [event for event in events if isinstance(event, EpochRecord)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=arguments.labels,
            output=str(Path(folder) / "out"),
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            patience=0,
            augment=AugmentConfig(gain_db=6.0),
        )
        frozen = TrainConfig(
            **{name: getattr(config, name) for name in config.__struct_fields__} | {"freeze": "encoder"}
        )
        where = Processes(torch.device("cpu"))
        runs = []
        for each in (config, frozen):
            network = start_model(each)
            data = load_dataset(each, network, silent, where)
            assert data is not None
            runs.append(Run(each, network, data, where))
        live, still = runs
        say("encoding once")
        assert still.encode(silent, None)
        loaders: dict[str, tuple[Run, Batches]] = {
            "clips": (live, live.loader()),
            "random tensors": (live, InMemory(live.loader())),
            "frozen": (still, still.loader()),
        }
        seen: dict[str, list[EpochRecord]] = {name: [] for name in loaders}
        for number in range(arguments.rounds):
            for name, (run, loader) in loaders.items():
                say(f"round {number + 1}: {name}")
                seen[name] += loop(run, loader, config)[1:]  # the first epoch warms up
    table = Table(
        "Training, once the clips are cached",
        ["what", "clips a second", "of random tensors", "waiting for data"],
    )
    speed = {name: middle(record.clips_per_second for record in records) for name, records in seen.items()}
    titles = {
        "clips": "`poolembed train --gain 6`, batches from the cache",
        "random tensors": "the same loop on random tensors in memory",
        "frozen": "`--freeze encoder`, features from the cache",
    }
    for name, records in seen.items():
        waiting = f"{middle(record.waiting for record in records):.1%}"
        share = f"{speed[name] / speed['random tensors']:.2f}"
        table.add(titles[name], f"{speed[name]:,.0f}", share, "-" if name == "random tensors" else waiting)
    clips = len(live.data.division.train)
    remark = (
        f"{clips} training clips, batches of {arguments.batch_size}; {arguments.rounds} rounds of {arguments.epochs} "
        "epochs in turn, the first epoch of each left out; medians over epochs, validation not counted."
    )
    saved = {name: [record.as_json() for record in records] for name, records in seen.items()}
    report("training", "Speed of training", "training LABELS", about, [table, remark], {"epochs": saved})


if __name__ == "__main__":
    main()
