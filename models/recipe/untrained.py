"""Make a seeded, untrained bundle: ``python models/recipe/untrained.py models/base``.

Random convolutions keep a lot of what sounds alike together, provided that every normalisation fits the audio that
comes in. So the weights are drawn from a seed, and the running statistics of all batch norms are taken, in one pass,
from five-second windows, half a second apart, of the clips in ``tests/clips`` played one after another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from poolembed.audio.find import find_audio
from poolembed.audio.source import open_source
from poolembed.bundle import save_bundle
from poolembed.nn.config import ModelConfig
from poolembed.nn.frontend import mel_filterbank
from poolembed.nn.model import SongModel

SEED = 20
CLIPS = Path(__file__).parents[2] / "tests" / "clips"

CARD = """\
**This model is not trained.** It is a seeded random encoder that stands in until a trained one ships.

# base

Log-mel (32 kHz, 2048-point FFT every 640 samples, 128 bands) -> plain 3x3 CNN with random weights (seed {seed}) ->
AutoPool per channel at alpha = 1, joined with the averages of every stage and mean and standard deviation of the mel
bands -> random orthogonal projection to 512 numbers, unit length.

- **Data**: none for training. The batch norms' running statistics come from the clips in `tests/clips` (CC0, from
  Debian's `sonic-pi-samples`).
- **Scores**: none; do not expect more of it than of mel statistics.
- **Intended use**: trying the pipeline. Compare vectors by cosine.
- **Licence**: MIT, as poolembed itself.
- **Made by** `python models/recipe/untrained.py models/base`.
"""


def main(target: str) -> None:
    """Write the bundle to the directory `target`."""
    torch.manual_seed(SEED)
    config = ModelConfig()
    network = SongModel(config, mel_filterbank(config.frontend))
    nn.init.orthogonal_(network.project.weight)
    nn.init.zeros_(network.project.bias)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over batches; here there is one
    music = torch.from_numpy(np.concatenate(list(_clips(config.frontend.sample_rate))))
    samples = music.unfold(0, network.window_samples, config.frontend.sample_rate // 2)
    network.train()
    with torch.no_grad():
        network(samples, torch.full((len(samples),), config.encoder.window_frames))
    network.eval()
    save_bundle(target, network, name="base", license="MIT", card=CARD.format(seed=SEED))
    print(f"wrote {target}, statistics of {len(samples)} windows")


def _clips(sample_rate: int) -> Iterator[NDArray[np.float32]]:
    for file in find_audio([CLIPS], on_error=_give_up):
        with open_source(file.path, sample_rate) as stream:
            yield from stream.blocks()


def _give_up(path: str, reason: str) -> None:
    raise SystemExit(f"{path}: {reason}")


if __name__ == "__main__":
    main(sys.argv[1])
