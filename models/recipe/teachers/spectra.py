"""Front ends of the teachers: power spectra and mel filters, as their weights expect them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def power_spectrum(samples: Tensor, window: Tensor, n_fft: int, hop: int, *, padding: str = "reflect") -> Tensor:
    """|STFT|² of centred frames: (B, n) -> (B, n_fft // 2 + 1, 1 + n // hop).

    Clips too short to be reflected at their edges are padded with zeros at the end first.
    """
    if samples.shape[-1] <= n_fft // 2:
        samples = F.pad(samples, (0, n_fft // 2 + 1 - samples.shape[-1]))
    spectrum = torch.stft(
        samples, n_fft, hop, win_length=len(window), window=window, center=True, pad_mode=padding, return_complex=True
    )
    return spectrum.real.square() + spectrum.imag.square()


def kaldi_filterbank(n_mels: int, n_fft: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Kaldi's triangles, straight in mel, with mel(f) = 1127 ln(1 + f / 700); (n_mels, n_fft // 2 + 1)."""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    corners = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    bins = mel(torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft)
    width = corners[1] - corners[0]
    rising = (bins - corners[:-2, None]) / width
    falling = (corners[2:, None] - bins) / width
    filters = torch.minimum(rising, falling).clamp_min(0)
    filters[:, -1] = 0  # Kaldi has no filter on the Nyquist frequency
    return filters.float()


def slaney_filterbank(n_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """librosa's default filters, (n_mels, n_fft // 2 + 1)."""
    from librosa.filters import mel

    return torch.from_numpy(mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels))
