"""What decodes a file: `Decoder`, and the one that is libsndfile's (FFmpeg's are in `_ffmpeg`).

libsndfile takes what is stored as samples (WAV, AIFF, AU, CAF, ...) and FLAC; FFmpeg, through PyAV, takes the rest.
Times real time for a song at 48 kHz stereo, on two cores, in one thread and in two threads at once:

    ====== =========== ============ ================
    format libsndfile  FFmpeg graph loop over packets
    ====== =========== ============ ================
    wav    6800  12900  5200   7300  6500   5400
    flac   1020   1890   930   1540   910   1750
    mp3    1210   2340  1120   2170  1120   1080
    ogg     730   1400  1000   1950   950    940
    opus    250    500   840   1640   850    910
    m4a                 1410   2740  1380   1040
    wma                 1810   3500  1870   1990
    ====== =========== ============ ================

MP3 goes to FFmpeg all the same: libsndfile's MP3 decoder writes to stderr from C, which nothing in Python can silence,
and stops at the first damaged frame.
"""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from poolembed.audio._promise import Promise
from poolembed.audio.encoding import Encoding, encoding_of_sndfile
from poolembed.errors import AudioError

# Samples a block, 1.5 s at 44.1 kHz: larger is no faster (it leaves the cache), smaller costs calls.
_BLOCK = 1 << 16
# No block is larger than this many samples of all channels together, whatever number of channels a header claims.
_MOST = 1 << 20


class DamagedError(Exception):
    """The decoder cannot go on from here; what it has returned so far is good."""


class Decoder(Protocol):
    """An open file on its way to mono blocks.

    Attributes:
        sample_rate: in Hz.
        promise: the length the container states, as far as the decoding library tells.
        errors: stretches of damaged data stepped over so far.
        encoding: of the audio, but for its bit rate.
        payload: bytes of the audio, as far as they can be told from what else is in the file.
    """

    sample_rate: int
    promise: Promise
    errors: int
    encoding: Encoding
    payload: int | None

    def read(self) -> NDArray[np.float32] | None:
        """The next block, 1-D and the caller's to keep, never empty; None at the end.

        Raises:
            DamagedError: the data is damaged and this decoder cannot step over the damage.
        """

    def close(self) -> None:
        """Let go of the library's own handles; the file descriptor stays the caller's."""


def mean_of_channels(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the first axis of ``(channels, n)``, a new array.

    Whole rows are added up: `numpy.mean` over interleaved channels takes 30 times as long, and a matrix product is no
    faster and depends on the BLAS.
    """
    if len(channels) == 1:
        return np.array(channels[0])
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is counted later
        total: NDArray[np.float32] = channels[0] + channels[1]
        for channel in channels[2:]:
            total += channel
    total /= np.float32(len(channels))
    return total


def block_size(channels: int) -> int:
    return max(1, min(_BLOCK, _MOST // channels))


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    def seekable(self) -> bool:
        # Or soundfile seeks to where it already is after each read, which fails for a FLAC that does not state its
        # length, as FFmpeg writes to a pipe.
        return False


class SndfileDecoder:
    """`Decoder` for the formats of libsndfile; ``is_empty`` if by its header there is nothing in the file.

    Args:
        descriptor: of the file, open for reading. A descriptor and not a name, so that libsndfile cannot take a suffix
            like ``.au`` for proof that a text file is headerless mu-law.

    Raises:
        AudioError: libsndfile does not read this file.
    """

    def __init__(self, descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            self._file = _SequentialFile(descriptor, closefd=False)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"cannot be decoded: {error.error_string}") from None
        self.sample_rate: int = self._file.samplerate
        # Without the length in its header a FLAC has 2^63 - 1 samples for libsndfile.
        known = self._file.format == "FLAC" and 0 < self._file.frames < 1 << 62
        self.promise = Promise(self._file.frames) if known else Promise()
        self.is_empty: bool = self._file.frames == 0
        self.encoding = encoding_of_sndfile(self._file)
        self.payload: int | None = os.fstat(descriptor).st_size
        self.errors = 0
        self._buffer = np.empty((block_size(self._file.channels), self._file.channels), np.float32)

    def read(self) -> NDArray[np.float32] | None:
        """See `Decoder.read`."""
        try:
            block: NDArray[np.float32] = self._file.read(out=self._buffer)
        except soundfile.LibsndfileError as error:
            raise DamagedError(error.error_string) from None
        return mean_of_channels(block.T) if len(block) else None

    def close(self) -> None:
        """See `Decoder.close`."""
        self._file.close()
