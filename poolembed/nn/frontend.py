"""Log-mel spectrogram in torch, equal to librosa's frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poolembed.nn.config import FrontendConfig

GROUP = 32
"""Mel bands that are computed by one matrix product."""


class LogMel(nn.Module):
    r"""Logarithm of the Slaney mel power spectrogram of waveform windows.

    Frame t of a song is centred on sample ``t * hop_length``, with zeros before the song and after it, as
    ``librosa.feature.melspectrogram(center=True, pad_mode="constant", power=2)`` computes it. A window of W frames that
    starts at frame t is cut from sample ``t * hop_length - n_fft // 2`` and carries all the samples its frames reach,
    so its frames are the song's own, at the window's edges too.

    .. math:: \log \max(\mathrm{fb} \cdot |\mathrm{rfft}(w \cdot x)|^2, \text{log\_floor})

    Args:
        config: rates and sizes.
        filterbank: mel filterbank ``(n_mels, n_fft // 2 + 1)``; a bundle stores its own, see `mel_filterbank`.

    Shape:
        - input: ``(B, (W - 1) * hop_length + n_fft)`` samples, float32, full scale 1.
        - output: ``(B, W, n_mels)``, natural logarithm of power.
    """

    def __init__(self, config: FrontendConfig, filterbank: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        bins = config.n_fft // 2 + 1
        self.filterbank: Tensor
        self.window: Tensor
        self.register_buffer("filterbank", torch.zeros(config.n_mels, bins) if filterbank is None else filterbank)
        if self.filterbank.shape != (config.n_mels, bins):
            raise ValueError(f"filterbank must be {(config.n_mels, bins)}, got {tuple(self.filterbank.shape)}")
        window = torch.hann_window(config.n_fft, periodic=True, dtype=torch.float64).float()
        self.register_buffer("window", window, persistent=False)
        self._bins: list[tuple[int, int]] | None = None

    def power(self, samples: Tensor) -> Tensor:
        """Mel power ``(B, W, n_mels)`` of windows ``(B, samples)``."""
        frames = samples.unfold(-1, self.config.n_fft, self.config.hop_length)
        with torch.autocast(samples.device.type, enabled=False):
            if samples.device.type != "cpu" or len(samples) == 0:
                return self._power(frames)
            # One window at a time stays in the processor's cache, and in memory that the allocator keeps: 2 x as fast.
            return torch.stack([self._power(window) for window in frames])

    def _power(self, frames: Tensor) -> Tensor:
        squares = torch.view_as_real(torch.fft.rfft(frames * self.window)).square()
        power = squares[..., 0] + squares[..., 1]
        return torch.cat([power[..., low:high] @ fb[:, low:high].T for fb, low, high in self._bands()], dim=-1)

    def _bands(self) -> Iterator[tuple[Tensor, int, int]]:
        """Groups of mel bands, each with the range of FFT bins it draws on: a quarter of the whole product."""
        if self._bins is None:  # not in __init__: a bundle's filterbank is loaded after it
            reach = [(fb != 0).any(0).nonzero().flatten().tolist() or [0] for fb in torch.split(self.filterbank, GROUP)]
            self._bins = [(bins[0], bins[-1] + 1) for bins in reach]
        for fb, (low, high) in zip(torch.split(self.filterbank, GROUP), self._bins, strict=True):
            yield fb, low, high

    def forward(self, samples: Tensor) -> Tensor:
        """Log-mel ``(B, W, n_mels)`` of windows ``(B, samples)``."""
        return self.power(samples).clamp_min(self.config.log_floor).log()


def mel_filterbank(config: FrontendConfig) -> Tensor:
    """Slaney's mel filterbank ``(n_mels, n_fft // 2 + 1)``: triangles of equal area (Slaney, Auditory Toolbox, 1998).

    The one that ``librosa.filters.mel(htk=False, norm="slaney")`` makes, without librosa, which is heavy: mels are
    linear in frequency up to 1 kHz, 15 of them, and logarithmic above, 27 of them from 1 to 6.4 kHz.
    """
    low, high = _mel(np.array([config.f_min, config.f_max]))
    edges = _hz(np.linspace(low, high, config.n_mels + 2))
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)  # rounded here, as librosa does
    return torch.from_numpy((bank * area[:, None]).astype(np.float32))


_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, math.log(6.4) / 27  # Hz per mel, Hz, and nats per mel above it


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above: NDArray[np.float64] = _KNEE / _LINEAR + np.log(np.maximum(hz, _KNEE) / _KNEE) / _STEP
    return np.where(hz < _KNEE, hz / _LINEAR, above)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above: NDArray[np.float64] = _KNEE * np.exp(_STEP * (mel - _KNEE / _LINEAR))
    return np.where(mel < _KNEE / _LINEAR, mel * _LINEAR, above)
