"""The spectrum that librosa computes, by its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def spectrum(samples: NDArray[Any], n_fft: int, hop_length: int, pad_mode: Any = "constant") -> NDArray[np.complex128]:
    """``librosa.stft``, ``(frames, n_fft // 2 + 1)``, which itself compiles for 20 seconds before its first frame."""
    padded = np.pad(samples.astype(np.float64), n_fft // 2, mode=pad_mode)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return np.fft.rfft(sliding_window_view(padded, n_fft)[::hop_length] * hann)
