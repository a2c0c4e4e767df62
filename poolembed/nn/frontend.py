"""Log-mel spectrogram in torch, equal to librosa's frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import torch
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
        filterbank: mel filterbank ``(n_mels, n_fft // 2 + 1)``; a bundle stores librosa's.

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


def librosa_filterbank(config: FrontendConfig) -> Tensor:
    """Librosa's Slaney mel filterbank ``(n_mels, n_fft // 2 + 1)``, for a bundle in the making.

    Raises:
        ImportError: librosa, which embedding does not need, is not installed (``pip install 'poolembed[bundle]'``).
    """
    import librosa

    return torch.from_numpy(
        librosa.filters.mel(
            sr=config.sample_rate,
            n_fft=config.n_fft,
            n_mels=config.n_mels,
            fmin=config.f_min,
            fmax=config.f_max,
            htk=False,
            norm="slaney",
        )
    )
