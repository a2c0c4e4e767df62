"""Channels to their mean, and those turned over that would cancel the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]

OUT_OF_PHASE = "channels out of phase"
"""How the note of a song begins some of whose channels were turned over."""

SILENT = "silent"
"""The note of a song without a sound."""


def is_silent(note: str | None) -> bool:
    """Whether a note says, beside what else it may say, that nothing is heard in a song."""
    return note is not None and SILENT in note.split("; ")


AUDIBLE = 1e-4
"""Nothing above this (-80 dB) is silence: dither of 16 bits reaches 3e-5, and 6e-5 once it is resampled."""

# Signs are chosen for stretches of so many seconds, or of as many samples as a block may have where that is less, each
# stretch counting three times as much as the one before it. Of 308 real songs in stereo 25 have such a stretch, and 40
# times in ten hours signs change; stretches of a second without memory make it 400 times.
_SECONDS = 2.5
_MOST = 1 << 20
_MEMORY = 1 / 3
# The mean loses something if it has less than this share of the power that it had if the channels were unrelated. Of
# two equal channels it has twice that, of two that cancel nothing.
_LOST = 0.8
# Power is measured at so many samples of a stretch or some more, which takes less than 1 % of the time of decoding.
_MEASURED = 2048
# Seconds in which one choice of signs fades into another, lest it clicks.
_FADE = 0.02
# More channels than any room has speakers are added up as they are.
_MOST_CHANNELS = 16


class Downmix:
    """The mean of a song's channels; of channels that cancel each other some are turned over before.

    Whether they are is decided for stretches at fixed places of the song, so that it does not depend on the blocks. It
    stays as it is until a stretch comes whose mean has so lost power: so it takes channels clearly out of phase to turn
    any over, and channels clearly in phase to turn them back. A song whose plain mean never loses any is that to the
    bit.

    Args:
        sample_rate: in Hz.

    Attributes:
        samples: of each channel, taken in so far.
    """

    def __init__(self, sample_rate: int) -> None:
        self.samples = 0
        self._rate = sample_rate
        self._turned = 0
        self._is_silent = True

    def blocks(self, blocks: Iterable[Frames]) -> Iterator[Frames]:
        """Mix a song, once.

        Args:
            blocks: ``(channels, n)``, which are not written to and have to stay as they are, for some of them are kept
                for a while. The number of channels may change.

        Yields:
            ``(n,)``, new arrays, none longer than the blocks.
        """
        stretch: _Stretch | None = None
        for block in blocks:
            self.samples += block.shape[1]
            if stretch is not None and len(block) != stretch.channels:
                yield from self._end(stretch)
                stretch = None
            if not 1 < len(block) <= _MOST_CHANNELS:
                yield self._heard(_mean(block, np.ones(len(block))))
                continue
            stretch = stretch or _Stretch(len(block), self._rate)
            while block.shape[1]:
                block = stretch.fill(block)  # noqa: PLW2901
                if stretch.is_full:
                    yield from self._end(stretch)
        if stretch is not None:
            yield from self._end(stretch)

    def _end(self, stretch: _Stretch) -> Iterator[Frames]:
        for piece in stretch.mixed():
            yield self._heard(piece)
        self._turned += stretch.turned

    def _heard(self, mixed: Frames) -> Frames:
        if self._is_silent:
            self._is_silent = not (np.abs(mixed) > AUDIBLE).any()
        return mixed

    def finish(self) -> list[str]:
        """What is to be said of the mix once the song is over."""
        if self._is_silent:
            return [SILENT]
        if self._turned:
            seconds = f"{self._turned / self._rate:.1f} of {self.samples / self._rate:.1f} s"
            return [f"{OUT_OF_PHASE}: turned over in {seconds}, lest they cancel"]
        return []


class _Stretch:
    """Blocks of several channels until there are enough of them, and what is remembered of those before.

    Attributes:
        channels: how many.
        turned: samples of the last stretch if channels of it were turned over, else 0.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.channels = channels
        self.turned = 0
        self._length = min(round(_SECONDS * sample_rate), _MOST // channels)
        self._stride = self._length // _MEASURED | 1  # odd, lest a tone fits in
        self._fade = round(_FADE * sample_rate)
        self._parts: list[Frames] = []
        self._filled = 0
        self._measured = np.zeros((channels, -(-self._length // self._stride)))
        self._products = np.zeros((channels, channels))
        self._signs = np.ones(channels)

    @property
    def is_full(self) -> bool:
        return self._filled == self._length

    def fill(self, block: Frames) -> Frames:
        """Take in what there is room for; returns the rest."""
        room = self._length - self._filled
        part = block[:, :room]
        first = -(-self._filled // self._stride)
        heard = part[:, first * self._stride - self._filled :: self._stride]
        with np.errstate(invalid="ignore"):  # of NaN that signal
            self._measured[:, first : first + heard.shape[1]] = heard
        self._parts.append(part)
        self._filled += part.shape[1]
        return block[:, room:]

    def mixed(self) -> Iterator[Frames]:
        """The mix of what was taken in, which is then forgotten."""
        before, was_silent = self._signs, not self._products.any()
        heard = self._measured[:, : -(-self._filled // self._stride)]
        heard[~np.isfinite(heard)] = 0
        self._products = _MEMORY * self._products + np.einsum("in,jn->ij", heard, heard)
        self._signs = choose_signs(self._products, before)
        self.turned = self._filled if (self._signs < 0).any() else 0
        faded = self._fade if was_silent or (self._signs == before).all() else 0
        for part in self._parts:
            mixed = _mean(part, self._signs)
            if faded < self._fade:
                old = _mean(part[:, : self._fade - faded], before)
                share = np.arange(faded, faded + len(old), dtype=np.float32) / np.float32(self._fade)
                with np.errstate(invalid="ignore", over="ignore"):
                    mixed[: len(old)] = old + share * (mixed[: len(old)] - old)
                faded += len(old)
            yield mixed
        self._parts, self._filled = [], 0


def choose_signs(products: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which channels to turn over.

    Args:
        products: ``(C, C)``, the sums of the products of each two channels.
        signs: ``(C,)``, 1 and -1, as they were before.

    Returns:
        ``(C,)``. Those before if the mean with them loses little; else those before with the channels turned over, one
        by one, that add most to the power of the mean. The first is 1: all turned over sound as none.
    """
    unrelated = float(np.trace(products))
    if signs @ products @ signs >= _LOST * unrelated:
        return signs
    signs = np.array(signs)
    others = products - np.diag(np.diag(products))
    while True:
        gains = -signs * (others @ signs)
        best = len(gains) - 1 - int(np.argmax(gains[::-1]))  # of equals the last: of two channels the first stays
        if gains[best] <= 1e-9 * unrelated:
            turned: NDArray[np.float64] = signs * signs[0]
            return turned
        signs[best] = -signs[best]


def _mean(channels: Frames, signs: NDArray[np.float64]) -> Frames:
    """``(channels, n)`` to a new array ``(n,)``.

    Whole rows are added up: `numpy.mean` over interleaved channels takes 30 times as long, and a matrix product is no
    faster and depends on the BLAS.
    """
    count = len(channels)
    if count == 1:
        return np.array(channels[0])
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is counted later
        mean: Frames = channels[0] + channels[1] if signs[1] > 0 else channels[0] - channels[1]
        for channel, sign in zip(channels[2:], signs[2:], strict=True):
            (np.add if sign > 0 else np.subtract)(mean, channel, out=mean)
        if count == 2:
            mean *= np.float32(0.5)  # which is the same to the bit, and faster
        else:
            mean /= np.float32(count)
    return mean
