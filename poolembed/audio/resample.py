"""Sample-rate conversion in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from poolembed.errors import AudioError

# No music is sampled outside these. A header that says 1 Hz would make a block of a second and a half 45 000 blocks.
RATES = range(1_000, 10_000_001)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], source_rate: int, target_rate: int
) -> Iterator[NDArray[np.float32]]:
    """The signal at another rate, whatever blocks it comes in: ``soxr.resample(x, ..., quality="HQ")``, in blocks.

    Args:
        blocks: the signal in pieces, each 1-D float32.
        source_rate: its rate, in Hz.
        target_rate: the rate wanted, in Hz. If it is the source's, the blocks pass through untouched.

    Yields:
        1-D float32 blocks, never empty ones (but for blocks that pass through). Their sizes follow those of the input.

    Raises:
        AudioError: on the first block, for a source rate below 1 kHz or above 10 MHz.
    """
    if source_rate not in RATES:
        raise AudioError(f"a sample rate of {source_rate} Hz is not one of music")
    if source_rate == target_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        converted = stream.resample_chunk(block)
        if converted.size:
            yield converted
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    if rest.size:
        yield rest
