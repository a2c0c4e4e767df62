"""The training loop: from the first step, or the checkpoint's, to the last epoch worth having."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from poolembed.errors import OutputError, TrainingError
from poolembed.progress import Progress
from poolembed.train.checkpoint import NAME as CHECKPOINT
from poolembed.train.checkpoint import damaged, load_checkpoint, load_optimizer, optimizer_tensors, save_checkpoint
from poolembed.train.config import TrainConfig
from poolembed.train.module import HeadedModel, Inputs, TrainingModule, average_of, update_average
from poolembed.train.optim import build_optimizer, pools_of, project_pools, rate_at, set_rate
from poolembed.train.processes import Processes
from poolembed.train.sampling import Prefetcher

CHECKPOINT_EVERY = 60.0
"""Seconds between checkpoints, at least: a small model's epochs are shorter than the writing of one."""

_SMOOTH = 0.9
"""How much of the loss that is told is of the steps before."""


class PoolingRecord(Struct, frozen=True):
    """Where a pooling parameter stands: ``where`` is features or predictions:<column>."""

    where: str
    parameter: str
    mean: float
    min: float
    max: float
    q10: float
    q50: float
    q90: float


class EpochRecord(Struct, frozen=True):
    """One line of ``history.jsonl``.

    Attributes:
        epoch: from 1.
        step: steps done so far.
        lr: learning rate of the last step.
        train: mean loss over the epoch, and each term's before it is weighted.
        valid: loss and metrics of the averaged weights on the clips held out.
        metric: the one of `valid` that chooses.
        seconds: the epoch took, validation included.
        clips_per_second: in training steps.
        waiting: share of the time of training steps that they waited for data.
        pooling: the pooling parameters of the averaged weights.
    """

    epoch: int
    step: int
    lr: float
    train: dict[str, float]
    valid: dict[str, float]
    metric: str
    seconds: float
    clips_per_second: float
    waiting: float
    pooling: list[PoolingRecord]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


@dataclass(frozen=True)
class Plan:
    """What a run is about to do, and the epochs that it did before it was stopped."""

    epochs: int
    steps_per_epoch: int
    first_step: int
    clips_per_step: int
    device: str
    precision: str
    parameters: int
    trained_parameters: int
    metric: str
    history: tuple[EpochRecord, ...] = ()


class Batches(Protocol):
    """Gives batches to train on; `poolembed.train.loading.Loader` does."""

    steps_per_epoch: int

    def prefetch(self, first: int, last: int) -> Prefetcher[Any]:
        """The batches of steps ``[first, last)``, made ahead of time."""

    def inputs(self, batch: Any, step: int) -> Inputs:
        """What the network is given of a batch, on the device."""


@dataclass
class Fitted:
    """What a run came to.

    Attributes:
        headed: the averaged weights of the best epoch, in eval mode.
        history: of every epoch.
        best: number of the best epoch, from 1; 0 before the first.
        finished: not interrupted.
    """

    headed: HeadedModel
    history: list[EpochRecord] = field(default_factory=list)
    best: int = 0
    finished: bool = False


def fit(  # noqa: PLR0915 - a loop that reads from top to bottom
    module: TrainingModule,
    loader: Batches,
    validate: Callable[[HeadedModel], dict[str, float]],
    config: TrainConfig,
    *,
    names: list[str],
    metric: str,
    pooling_lr: float,
    identity: str,
    progress: Progress,
    on_event: Callable[[Plan | EpochRecord], None],
    processes: Processes,
    directory: Path | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Fitted:
    """Train until the last epoch, or until `patience` epochs brought nothing better, or until stopped.

    The same seed gives the same weights on the same machine, and so does a run that was stopped and goes on: a step
    depends on the weights, the optimizer's moments and the step's number alone.

    Args:
        module: what is trained, on its device.
        loader: makes the batches.
        validate: gives loss and metrics of a model; higher metrics are better.
        config: epochs, rates, patience.
        names: of the parts of the loss.
        metric: the key of what `validate` gives that chooses the best epoch.
        pooling_lr: multiple of the learning rate for pooling parameters.
        identity: of the data; a run that resumes must have the same.
        progress: told of every step.
        on_event: told of the plan before the first step, and of every epoch.
        processes: those that train together.
        directory: where checkpoints go; None for none.
        resume: go on from the checkpoint.
        stop: once set, the step in hand is finished, a checkpoint is written, and the result is not `finished`.

    Raises:
        TrainingError: the loss is no number.
        OutputError: a checkpoint cannot be written or read.
    """
    headed, pools = module.headed, [pool for _, pool in pools_of(module)]
    optimizer = build_optimizer(module, lr=config.lr, weight_decay=config.weight_decay, pooling_lr=pooling_lr)
    scaler = torch.amp.GradScaler(str(processes.device), enabled=headed.precision == torch.float16)
    average = average_of(headed)
    result = Fitted(average_of(headed))
    parameters = [p for p in module.parameters() if p.requires_grad]
    per_epoch = loader.steps_per_epoch
    steps = config.epochs * per_epoch
    first, totals = 0, torch.zeros(len(names) + 1, dtype=torch.float64)
    if resume and directory is not None:
        groups, read = load_checkpoint(directory)
        try:
            state = msgspec.convert(read, _State)
            if state.identity != identity:
                raise OutputError(
                    f"the clips are not those that the run in {directory} began with",
                    hint="put them back as they were, or start again with --overwrite",
                )
            module.load_state_dict(groups["module"])
            average.load_state_dict(groups["average"])
            result.headed.load_state_dict(groups["best"])
            load_optimizer(optimizer, groups.get("optimizer", {}))
            scaler.load_state_dict(state.scaler)
            torch.set_rng_state(groups["generator"]["torch"])
            first, totals = state.step, totals.copy_(groups["generator"]["totals"])
            result.history, result.best = state.history, state.best
            _check(state, per_epoch, metric)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            raise damaged(directory / CHECKPOINT, error) from error

    def save(step: int) -> None:
        if directory is None or not processes.first:
            return
        groups = {
            "module": module.state_dict(),
            "average": average.state_dict(),
            "best": result.headed.state_dict(),
            "optimizer": optimizer_tensors(optimizer),
            "generator": {"torch": torch.get_rng_state(), "totals": totals},
        }
        history = msgspec.to_builtins(result.history)
        state = {"step": step, "best": result.best, "history": history, "identity": identity}
        save_checkpoint(directory, groups, {**state, "scaler": scaler.state_dict()})

    plan = _plan(module.headed, config, per_epoch, first, metric, processes, result.history)
    on_event(plan)
    telling = _Telling(progress, plan)
    network = processes.wrap(module)
    saved = began = time.perf_counter()
    with loader.prefetch(first, steps) as batches:
        for step in range(first, steps):
            if _exhausted(result, config.patience):
                break
            inputs = loader.inputs(next(batches), step)
            rate = rate_at(step, steps, peak=config.lr, warmup=config.warmup)
            set_rate(optimizer, rate)
            loss, terms = network(inputs)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            project_pools(pools)
            # The average's memory grows with its age, or a short run would end with its random start in it.
            update_average(average, headed, min(config.ema, (1 + step) / (10 + step)))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(f"the loss is {value} at step {step + 1}", hint="lower --lr, or --precision fp32")
            totals += torch.cat([loss.detach().reshape(1), terms]).double().cpu()
            telling.step(step + 1, value, len(inputs.clips), result)
            if (step + 1) % per_epoch == 0:
                trained = max(time.perf_counter() - began, 1e-9)  # a clock may be coarse
                record = EpochRecord(
                    epoch=(step + 1) // per_epoch,
                    step=step + 1,
                    lr=rate,
                    train=dict(zip(["loss", *names], (totals / per_epoch).tolist(), strict=True)),
                    valid=processes.agree(validate, average),
                    metric=metric,
                    seconds=time.perf_counter() - began,
                    clips_per_second=per_epoch * config.batch_size / trained,
                    waiting=min(batches.waited / trained, 1.0),
                    pooling=pooling_records(average),
                )
                result.history.append(record)
                better = result.best == 0 or record.valid[metric] > result.history[result.best - 1].valid[metric]
                if better:
                    result.best = record.epoch
                    result.headed.load_state_dict(average.state_dict())
                on_event(record)
                totals.zero_()
                began, batches.waited = time.perf_counter(), 0.0
            if processes.agree_to_stop(stop):
                save(step + 1)
                return result
            if time.perf_counter() - saved > CHECKPOINT_EVERY:
                save(step + 1)
                saved = time.perf_counter()
    # Once more, so that what was learned is safe until the bundle is written.
    save(result.history[-1].step)
    result.finished = True
    return result


class _Telling:
    """Tells how far training is: the loss, smoothed; the best metric so far; the speed."""

    def __init__(self, progress: Progress, plan: Plan) -> None:
        self._progress, self._plan = progress, plan
        self._steps = plan.epochs * plan.steps_per_epoch
        self._loss, self._clips, self._began = math.nan, 0, time.perf_counter()
        progress("training", plan.first_step, self._steps, f"step {plan.first_step:,}/{self._steps:,}")

    def step(self, step: int, loss: float, clips: int, result: Fitted) -> None:
        """A step is done."""
        self._loss = loss if math.isnan(self._loss) else _SMOOTH * self._loss + (1 - _SMOOTH) * loss
        self._clips += clips
        speed = self._clips / max(time.perf_counter() - self._began, 1e-9)
        metric = self._plan.metric
        best = f"{metric} {result.history[result.best - 1].valid[metric]:.3f}, " if result.best else ""
        epoch = f"epoch {(step - 1) // self._plan.steps_per_epoch + 1}/{self._plan.epochs}"
        note = f"{epoch}, step {step:,}/{self._steps:,}, loss {self._loss:.3f}, {best}{speed:,.0f} clips/s"
        self._progress("training", step, self._steps, note)


class _State(Struct):
    """What a checkpoint holds besides tensors."""

    step: Annotated[int, Meta(ge=0)]
    best: Annotated[int, Meta(ge=0)]
    history: list[EpochRecord]
    identity: str
    scaler: dict[str, Any]


def _check(state: _State, per_epoch: int, metric: str) -> None:
    """Raise a ValueError unless steps, epochs and metric agree."""
    epochs = len(state.history)
    right = all(record.step == per_epoch * epoch for epoch, record in enumerate(state.history, 1))
    if not right or epochs != state.step // per_epoch or not min(epochs, 1) <= state.best <= epochs:
        raise ValueError("its steps and its epochs do not agree")
    if any(metric not in record.valid for record in state.history):
        raise ValueError(f"it has an epoch without {metric}")


def _exhausted(result: Fitted, patience: int) -> bool:
    return bool(result.history) and 0 < patience <= result.history[-1].epoch - result.best


def pooling_records(headed: HeadedModel) -> list[PoolingRecord]:
    """Where the pooling parameters of a model stand, those that can be read: alpha and p."""
    records = []
    for where, parameter, values in pooling_values(headed):
        low, q10, q50, q90, high = torch.quantile(values, torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])).tolist()
        records.append(PoolingRecord(where, parameter, float(values.mean()), low, high, q10, q50, q90))
    return records


Values = tuple[str, str, Tensor]


def pooling_values(headed: HeadedModel) -> list[Values]:
    """Where, which, and the values ``(1,)`` or ``(C,)`` of each alpha and p."""
    values = []
    for _, pool in pools_of(headed):
        for parameter in ("alpha", "p"):
            if isinstance(value := getattr(pool, parameter, None), Tensor):
                head = next((h for h in headed.frame_heads if h.pool is pool), None)
                where = "features" if head is None else f"predictions:{head.config.column}"
                values.append((where, parameter, value.detach().float().cpu().reshape(-1)))
    return values


def _plan(
    headed: HeadedModel,
    config: TrainConfig,
    per_epoch: int,
    first: int,
    metric: str,
    processes: Processes,
    history: list[EpochRecord],
) -> Plan:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return Plan(
        epochs=config.epochs,
        steps_per_epoch=per_epoch,
        first_step=first,
        clips_per_step=config.batch_size,
        device=processes.device.type,
        precision=names[headed.precision],
        parameters=sum(p.numel() for p in headed.parameters()),
        trained_parameters=sum(p.numel() for p in headed.parameters() if p.requires_grad),
        metric=metric,
        history=tuple(history),
    )
