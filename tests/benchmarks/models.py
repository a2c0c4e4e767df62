"""How fast the models that ship are beside each other, and beside a teacher.

python -m tests.benchmarks.models [--models base tiny] [--mn04 WEIGHTS] [--rounds 5]

Noise in memory, on as many bare threads as there are cores, nothing decoded: log-mel frames, and the network with its
pooling. WEIGHTS is the checkpoint of EfficientAT mn04 that `models/recipe/README.md` names; it is called as the recipe
calls it, by eager torch in fp32, with its own front end. All in turn, once a round; medians, and ratios within a round
to the first model with as many windows a batch as it embeds with unless told otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.recipe.teachers.vectors import load_teacher
from poolembed.bundle import load_bundle
from poolembed.embed.device import choose_precision, default_batch_size, exact_and_single_threaded
from poolembed.embed.windows import WindowShape
from tests.benchmarks.common import Table, cores, machine, middle, on_bare_threads, report, say
from tests.benchmarks.stages import packed_states, without_frontend

SIZES = 8, 16, 32  # windows of a batch
BATCHES = 16
TEACHER = "EfficientAT mn04, fp32"

Work = Callable[[Tensor], object]


def contenders(models: list[str], size: int, teacher: Path | None) -> dict[str, tuple[Work, Tensor, float]]:
    """Name -> what it does, a batch of what it does it to, and how many seconds of audio that is."""
    cpu = torch.device("cpu")
    found: dict[str, tuple[Work, Tensor, float]] = {}
    noise = torch.Generator().manual_seed(0)
    for model in models:
        for precision in ("auto", "fp32"):
            dtype = choose_precision("auto" if precision == "auto" else "fp32", cpu)
            if precision == "auto" and dtype == torch.float32:
                continue
            network = load_bundle(model).network.for_inference(cpu, dtype)
            shape, rate = WindowShape.of(network.config), network.config.frontend.sample_rate
            seconds = size * shape.frames * shape.hop_length / rate
            samples = 0.1 * torch.randn(size, shape.samples, generator=noise)
            found.setdefault("log-mel frames", (network.frontend, samples, seconds))
            name = f"{model}, {str(dtype).removeprefix('torch.')}"
            found[name] = (partial(packed_states, without_frontend(network)), network.frontend(samples), seconds)
    if teacher:
        called = load_teacher("mn04", teacher)
        samples = 0.1 * torch.randn(size // 2, 10 * called.sample_rate, generator=noise)
        found[TEACHER] = (called, samples, 10.0 * (size // 2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["base", "tiny"])
    parser.add_argument("--mn04", type=Path, metavar="WEIGHTS")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    about = machine()
    cpu, leader = torch.device("cpu"), arguments.models[0]
    own = {model: default_batch_size(cpu, load_bundle(model).config.model) for model in arguments.models}
    sizes = sorted({*SIZES, *own.values()})
    speeds: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    with exact_and_single_threaded(), torch.inference_mode():
        works = {size: contenders(arguments.models, size, arguments.mn04) for size in sizes}
        for number in range(arguments.rounds + 1):
            say(f"round {number} of {arguments.rounds}")
            for size in sizes:
                for name, (work, batch, seconds) in works[size].items():
                    began = time.perf_counter()
                    on_bare_threads(cores(), [batch] * BATCHES, inference(work))
                    if number:
                        speed = BATCHES * seconds / (time.perf_counter() - began)
                        speeds[size].setdefault(name, []).append(speed)
    first = next(name for name in speeds[own[leader]] if name.startswith(leader))
    others = speeds[own[leader]][first]
    table = Table(
        "Seconds of audio a second", ["what", "windows a batch", "x real time", f"of {first}, {own[leader]} windows"]
    )
    for size, found in speeds.items():
        for name, values in found.items():
            ratio = middle(value / other for value, other in zip(values, others, strict=True))
            table.add(name, size, f"{middle(values):,.0f}", f"{ratio:.2f}")
    usual = ", ".join(f"{model} {size}" for model, size in own.items())
    remark = (
        f"{cores()} threads, {arguments.rounds} rounds. Windows a batch unless told otherwise: {usual}. Networks read "
        "log-mel frames, mn04 samples, its front end included."
    )
    command = "models" + (" --mn04 WEIGHTS" if arguments.mn04 else "")
    report("models", "Speed of the models", command, about, [table, remark], {"speeds": speeds})


def inference(work: Work) -> Work:
    """For threads of their own, which a context elsewhere says nothing to."""

    def run(batch: Tensor) -> None:
        with torch.inference_mode():
            work(batch)

    return run


if __name__ == "__main__":
    main()
