"""Augmentation of log-mel crops, on whatever device they are.

All random numbers are drawn on the CPU by a generator of the seed and the step, so that a run can resume and a GPU
augments as the CPU does. At strength 0 each function returns its input untouched. What comes before a clip's beginning
or after its end stays silent: at the floor, log of `FrontendConfig.log_floor`, which is what silence has in every band.

Crops are ``(R, W, F, n_mels)``: W windows of F frames, one after the other in time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from poolembed.nn.frontend import LogMel
from poolembed.train.config import AugmentConfig
from poolembed.train.sampling import generator

_DB = math.log(10) / 10  # nats of power
_POINTS = 5  # of the equalizer's curve
_NOISE_FRAMES = 512
_SNR_DB = (5.0, 35.0)  # of the clip above the noise
_UPPER = 0.4  # of the bands may be lost to a low-pass; of 128 up to 16 kHz those above 3.5 kHz


def augment(
    mel: Tensor,
    frames: Tensor,
    config: AugmentConfig,
    *,
    seed: int,
    step: int,
    log_floor: float,
    rank: int = 0,
    first: Tensor | None = None,
    noise: WhiteNoise | None = None,
) -> Tensor:
    """Resized crop, gain, equalizer, noise, low-pass, and masks of time and bands, each row its own.

    Args:
        mel: ``(R, W, F, n_mels)`` log-mels; left as they are.
        frames: ``(R,)`` frames of the clip, be they in the context.
        config: strengths.
        seed: of the run.
        step: its number.
        log_floor: smallest mel power told apart.
        rank: number of the process, where several share a step.
        first: ``(R,)`` the frame that the clip begins at; None: at the first.
        noise: as the front end hears it; needed where ``config.noise`` is not 0.
    """
    rows = len(mel)
    first = torch.zeros_like(frames) if first is None else first
    random = generator(seed, "augment", step, rank)
    # Drawn whether they are needed or not: switching one augmentation off leaves the others as they were.
    crop, gain, mask = (torch.from_numpy(random.random((rows, 4))).float().to(mel.device) for _ in range(3))
    curve, cut = (torch.from_numpy(random.random((rows, size))).float().to(mel.device) for size in (_POINTS, 2))
    mel = resized_crop(mel, frames, config.resized_crop, crop, log_floor, first)
    mel = change_gain(mel, config.gain_db * (2 * gain[:, 0] - 1), log_floor) if config.gain_db else mel
    mel = equalize(mel, config.equalizer_db, curve, log_floor)
    if noise is not None and config.noise:
        hiss = torch.from_numpy(random.random((rows, 4))).float().to(mel.device)
        mel = add_noise(mel, frames, config.noise, hiss, noise, first)
    mel = low_pass(mel, config.low_pass, cut, log_floor)
    return mask_stretches(mel, frames, config.time_mask, config.band_mask, mask, first)


def change_gain(mel: Tensor, gain_db: Tensor, log_floor: float) -> Tensor:
    """Change the level by ``(R,)`` dB, or that of each band by ``(R, n_mels)`` dB.

    The former is the log-mel of the waveform times ``10 ** (dB / 20)``.

    What is at the floor stays there, for how far below it is cannot be known: digital silence stays silent.
    """
    floor = math.log(log_floor)
    louder = (mel + (_DB * gain_db).reshape(len(mel), 1, 1, -1)).clamp_min_(floor)
    return torch.where(mel > floor + 1e-4, louder, mel, out=louder)


def equalize(mel: Tensor, strength_db: float, drawn: Tensor, log_floor: float) -> Tensor:
    """Another frequency response: a line through levels drawn at bands evenly apart.

    Nam, Kim and Park, FilterAugment: an acoustic environmental data augmentation method, 2022, draw the places too.

    Args:
        mel: ``(R, W, F, n_mels)``.
        strength_db: largest change, either way.
        drawn: ``(R, P)`` in [0, 1): levels at P bands, from the first to the last.
        log_floor: smallest mel power told apart.
    """
    if not strength_db:
        return mel
    levels = (strength_db * (2 * drawn - 1)).unsqueeze(1)
    return change_gain(mel, functional.interpolate(levels, mel.shape[-1], mode="linear", align_corners=True), log_floor)


def low_pass(mel: Tensor, share: float, drawn: Tensor, log_floor: float) -> Tensor:
    """Silence the bands above a cut-off, as resampling and low bitrates do.

    Args:
        mel: ``(R, W, F, n_mels)``.
        share: of the rows that lose any.
        drawn: ``(R, 2)`` in [0, 1): whether, and from which of the upper bands on.
        log_floor: smallest mel power told apart.
    """
    if not share:
        return mel
    bands = mel.shape[-1]
    first = torch.where(drawn[:, 0] < share, bands * (1 - _UPPER * drawn[:, 1]), bands)
    lost = torch.arange(bands, device=mel.device) >= first.unsqueeze(1)
    return mel.masked_fill(lost.reshape(len(mel), 1, 1, bands), math.log(log_floor))


class WhiteNoise:
    """White noise as a front end hears it, to be laid over log-mels.

    Args:
        frontend: of the model.

    Attributes:
        power: ``(F, n_mels)`` mel power of noise whose mean over time is 1 in every band.
        widths: ``(n_mels,)`` share of the spectrum's width that each band stands for.
        hz: ``(n_mels,)`` middle of each band.
    """

    def __init__(self, frontend: LogMel) -> None:
        config = frontend.config
        samples = generator(0, "noise").standard_normal((_NOISE_FRAMES - 1) * config.hop_length + config.n_fft)
        device = frontend.filterbank.device
        power = frontend.power(torch.from_numpy(samples).float().unsqueeze(0).to(device))[0]
        self.power = power / power.mean(0).clamp_min(1e-12)
        bank = frontend.filterbank
        hz = torch.linspace(0, config.sample_rate / 2, bank.shape[1], device=device)
        self.hz = (bank @ hz / bank.sum(1).clamp_min(1e-12)).clamp_min(hz[1])
        width = 1 / bank.amax(1).clamp_min(1e-6)  # of triangles of equal area
        self.widths = width / width.sum()


def add_noise(
    mel: Tensor, frames: Tensor, share: float, drawn: Tensor, noise: WhiteNoise, first: Tensor | None = None
) -> Tensor:
    """Lay noise over some of the clips: white to pink, `_SNR_DB` below them.

    Powers are added, which leaves out what the two have in common by chance.

    Args:
        mel: ``(R, W, F, n_mels)``.
        frames: ``(R,)`` of the clip, which alone is given noise.
        share: of the rows that are given any.
        drawn: ``(R, 4)`` in [0, 1): whether, how far below, how pink, and from which of the noise's frames on.
        noise: as the front end hears it.
        first: ``(R,)`` the frame that the clip begins at; None: at the first.
    """
    rows = torch.nonzero(drawn[:, 0] < share).flatten()
    if not len(rows):
        return mel
    _, windows, length, bands = mel.shape
    drawn, start = drawn[rows], torch.zeros_like(rows) if first is None else first[rows]
    time = torch.arange(windows * length, device=mel.device)
    real = (time >= start.unsqueeze(1)) & (time < (start + frames[rows]).unsqueeze(1))
    plain = mel[rows].flatten(1, 2)
    power = plain.exp()
    level = (power @ noise.widths * real).sum(1) / real.sum(1).clamp_min(1)
    low, high = _SNR_DB
    level = level * 10 ** (-(low + (high - low) * drawn[:, 1]) / 10)
    colour = noise.hz ** -drawn[:, 2:3]
    colour = colour / (colour @ noise.widths).unsqueeze(1)
    hiss = noise.power[(time + (drawn[:, 3:] * len(noise.power)).long()) % len(noise.power)]
    noisy = (power + hiss * (level.unsqueeze(1) * colour).unsqueeze(1)).log()
    noisy = torch.where(real.unsqueeze(2), noisy, plain)
    return mel.index_copy(0, rows, noisy.view(-1, windows, length, bands))


def mask_stretches(
    mel: Tensor, frames: Tensor, time_mask: float, band_mask: float, drawn: Tensor, first: Tensor | None = None
) -> Tensor:
    """Set one stretch of time and one of bands to the clip's mean (SpecAugment, Park et al. 2019).

    Args:
        mel: ``(R, W, F, n_mels)``.
        frames: ``(R,)``.
        time_mask: longest stretch, as a share of the clip's frames in the crop.
        band_mask: most bands, as a share.
        drawn: ``(R, 4)`` in [0, 1): lengths and places of the two.
        first: ``(R,)`` the frame that the clip begins at; None: at the first.
    """
    if not time_mask and not band_mask:
        return mel
    rows, windows, length, bands = mel.shape
    time = torch.arange(windows * length, device=mel.device).reshape(1, -1, 1)
    time = time if first is None else time - first.reshape(-1, 1, 1)
    band = torch.arange(bands, device=mel.device).reshape(1, 1, -1)
    total = frames.reshape(-1, 1, 1)
    flat = mel.reshape(rows, -1, bands)
    real = (time >= 0) & (time < total)
    mean = (flat * real).sum((1, 2), keepdim=True) / (total * bands).clamp_min(1)
    places = drawn.reshape(rows, 4, 1, 1).unbind(1)
    masked = _inside(time, total, time_mask, *places[:2]) | _inside(band, bands, band_mask, *places[2:])
    return torch.where(masked & real, mean, flat).reshape(mel.shape)


def _inside(index: Tensor, total: Tensor | int, share: float, length: Tensor, place: Tensor) -> Tensor:
    """Whether an index lies in a stretch of up to a share of the total, somewhere in it."""
    most = torch.as_tensor(share * total).floor()
    size = (length * (most + 1)).floor()
    start = (place * (total - size + 1)).floor()
    return (index >= start) & (index < start + size)


def resized_crop(
    mel: Tensor, frames: Tensor, strength: float, drawn: Tensor, log_floor: float, first: Tensor | None = None
) -> Tensor:
    """Stretch or shrink time and bands, by up to `strength` either way (random resized crop, Niizumi et al. 2021).

    A stretch of ``1 - strength`` to ``1 + strength`` times the clip's length is resampled, bilinearly, to the clip's
    length, and so with the bands. It lies within the clip if it is shorter; if it is longer the clip lies within it,
    with silence around.

    Args:
        mel: ``(R, W, F, n_mels)``.
        frames: ``(R,)``.
        strength: largest change.
        drawn: ``(R, 4)`` in [0, 1): lengths and places along time and bands.
        log_floor: smallest mel power told apart.
        first: ``(R,)`` the frame that the clip begins at; None: at the first.
    """
    if not strength:
        return mel
    floor = math.log(log_floor)
    rows, windows, length, bands = mel.shape
    total = windows * length
    size = frames.to(mel.dtype).unsqueeze(1)
    begin = frames.new_zeros(rows, 1).to(mel.dtype) if first is None else first.to(mel.dtype).unsqueeze(1)
    time = torch.arange(total, device=mel.device, dtype=mel.dtype).unsqueeze(0) - begin
    band = torch.arange(bands, device=mel.device, dtype=mel.dtype).unsqueeze(0)
    real = (time >= 0) & (time < size)
    grid = mel.new_empty(rows, total, bands, 2)
    # In the grid's units the picture reaches from -1 to 1, from its first pixel's edge to its last one's.
    grid[..., 0] = (2 * _source(band, float(bands), strength, drawn[:, 2:]) / bands - 1).unsqueeze(1)
    grid[..., 1] = (2 * (_source(time, size, strength, drawn[:, :2]) + begin) / total - 1).unsqueeze(2)
    above = (mel.reshape(rows, 1, total, bands) - floor) * real.reshape(rows, 1, total, 1)
    moved = functional.grid_sample(above, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (moved * real.reshape(rows, 1, total, 1) + floor).reshape(mel.shape)


def _source(index: Tensor, size: Tensor | float, strength: float, drawn: Tensor) -> Tensor:
    """Where along an axis what is to stand at an index comes from; the pixel at index i reaches from i to i + 1."""
    scale = 1 + strength * (2 * drawn[:, :1] - 1)
    return (index + 0.5) * scale + drawn[:, 1:] * size * (1 - scale)


class Mixed(NamedTuple):
    """Crops that were mixed.

    Attributes:
        mel: ``(R, W, F, n_mels)``.
        start: ``(R,)`` where the earlier of the two begins.
        frames: ``(R,)`` from there to where the later one ends.
        partner: ``(R,)`` the row that each was mixed with.
        share: ``(R,)`` its own share, 0.5 to 1; the partner has the rest.
    """

    mel: Tensor
    start: Tensor
    frames: Tensor
    partner: Tensor
    share: Tensor


def mixup(
    mel: Tensor,
    frames: Tensor,
    strength: float,
    *,
    seed: int,
    step: int,
    log_floor: float,
    rank: int = 0,
    start: Tensor | None = None,
) -> Mixed:
    """Mix every crop with another one, in power, as their sounds would add up (Zhang et al. 2018).

    Args:
        mel: ``(R, W, F, n_mels)`` log-mels; left as they are.
        frames: ``(R,)``, how many are the clip's.
        strength: parameter of the symmetric Beta distribution that shares are drawn from; 0 mixes nothing.
        seed: of the run.
        step: its number.
        log_floor: smallest mel power told apart.
        rank: number of the process, where several share a step.
        start: ``(R,)`` the first that is; None: the first of all.
    """
    rows = len(mel)
    start = torch.zeros_like(frames) if start is None else start
    if not strength:
        return Mixed(mel, start, frames, torch.arange(rows, device=mel.device), mel.new_ones(rows))
    random = generator(seed, "mixup", step, rank)
    partner = torch.from_numpy(random.permutation(rows)).to(mel.device)
    drawn = random.beta(strength, strength, rows)
    share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).to(mel)
    logs = [part.log().reshape(-1, 1, 1, 1) for part in (share, 1 - share)]
    # Shares of less than the floor sum up to the floor only up to rounding.
    mixed = torch.logaddexp(mel + logs[0], mel[partner] + logs[1]).clamp_min(math.log(log_floor))
    first, stop = torch.minimum(start, start[partner]), torch.maximum(start + frames, (start + frames)[partner])
    return Mixed(mixed, first, stop - first, partner, share)
