"""What decodes a file: `Decoder`, and the one that is libsndfile's (FFmpeg's are in `_ffmpeg`).

libsndfile takes what is stored as samples (WAV, AIFF, AU, CAF, ...) and FLAC; FFmpeg, through PyAV, takes the rest, but
for what it refuses and libsndfile does not: Ogg Vorbis whose headers come twice, say.
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

MP3 goes to FFmpeg all the same, and never to libsndfile: its MP3 decoder writes to stderr from C, which nothing in
Python can silence, stops at the first damaged frame, and of a file without a table reads a part, or its end twice.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
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
# The mark and the header of the block that comes first in every FLAC, which has 34 bytes.
_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")
# libsndfile's number for an allocation that failed.
_MALLOC_FAILED = 17
# More than libFLAC has read of a file without having decoded it.
_READ_AHEAD = 1 << 16


Part = tuple[int, int]
"""First byte and end of a part of a file."""


class DamagedError(Exception):
    """The decoder cannot go on from here; what it has returned so far is good.

    Attributes:
        is_damage: whether something is wrong with the file. Otherwise it changes in a way that this decoder does not
            follow.
        rest: where in the file there is more to decode, which follows what this decoder has returned; empty if that
            cannot be told.
    """

    def __init__(self, message: str, *, is_damage: bool = True, rest: Sequence[Part] = ()) -> None:
        super().__init__(message)
        self.is_damage = is_damage
        self.rest = rest


class Decoder(Protocol):
    """An open file on its way to blocks of samples.

    Attributes:
        sample_rate: in Hz, of all that it returns.
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
        """The next block, ``(channels, n)``, never empty and never changed again; None at the end.

        Raises:
            DamagedError: the data is damaged or changes, and this decoder cannot go on.
        """

    def close(self) -> None:
        """Let go of the library's own handles; the file descriptor stays the caller's."""


def block_size(channels: int) -> int:
    """Samples per channel of a block."""
    return max(1, min(_BLOCK, _MOST // channels))


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    def seekable(self) -> bool:
        # Or soundfile seeks to where it already is after each read, which fails for a FLAC that does not state its
        # length, as FFmpeg writes to a pipe.
        return False


class SndfileDecoder:
    """`Decoder` for the formats of libsndfile; ``is_empty`` if by its header there is nothing in the file.

    Args:
        source: a descriptor of the file, open for reading, or a file object. No name, so that libsndfile cannot take a
            suffix like ``.au`` for proof that a text file is headerless mu-law.
        most: samples to read at most, if it is known how many there are: of a W64 libsndfile takes what is behind them
            for some more.

    Raises:
        AudioError: libsndfile does not read this file.
        MemoryError: there is not enough for it.
    """

    def __init__(self, source: int | io.RawIOBase, most: int | None = None) -> None:
        self._descriptor = source if isinstance(source, int) else None
        if isinstance(source, int):
            os.lseek(source, 0, os.SEEK_SET)
        try:
            self._file = _SequentialFile(source, closefd=False)
        except soundfile.LibsndfileError as error:
            _raise_want(error)
            raise AudioError(f"cannot be decoded: {error.error_string}") from None
        self.sample_rate: int = self._file.samplerate
        self._is_flac = self._file.format == "FLAC"
        # Without the length in its header a FLAC has 2^63 - 1 samples for libsndfile. That of an Ogg, by its last page,
        # counts samples that are in front of the beginning and are not played.
        is_known = self._file.format in ("FLAC", "OGG") and 0 < self._file.frames < 1 << 62
        slack = 0 if self._is_flac else self.sample_rate // 4
        self.promise = Promise(self._file.frames, slack) if is_known else Promise()
        self._left: int | None = self.promise.samples if self._is_flac else most
        self.is_empty: bool = self._file.frames == 0
        self.encoding = encoding_of_sndfile(self._file)
        self.payload: int | None = None if self._descriptor is None else os.fstat(self._descriptor).st_size
        self.errors = 0

    def read(self) -> NDArray[np.float32] | None:
        """See `Decoder.read`."""
        # Of a FLAC no sample more than there are: libsndfile looks for the next frame in a tag behind the last one,
        # and then returns nothing of the whole block.
        size = block_size(self._file.channels)
        buffer = np.empty((size if self._left is None else min(size, self._left), self._file.channels), np.float32)
        if not len(buffer):
            if self._is_flac:
                self._look_behind()
            return None
        try:
            block: NDArray[np.float32] = self._file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            _raise_want(error)
            raise DamagedError(error.error_string) from None
        if self._left is not None:
            self._left -= len(block)
        return block.T if len(block) else None

    def _look_behind(self) -> None:
        """Raise if a FLAC goes on where its first header says that it ends: others are joined to it."""
        if self._descriptor is None:
            return
        position = max(1, os.lseek(self._descriptor, 0, os.SEEK_CUR) - _READ_AHEAD)
        os.lseek(self._descriptor, position, os.SEEK_SET)
        starts: list[int] = []
        overlap = b""
        while data := os.read(self._descriptor, 1 << 20):
            data = overlap + data
            starts += [position + match.start() for match in _FLAC.finditer(data)]
            overlap = data[-7:]
            position += len(data) - len(overlap)
        if starts:
            ends = [*starts[1:], position + len(overlap)]
            raise DamagedError("another FLAC follows", is_damage=False, rest=[*zip(starts, ends, strict=True)])

    def close(self) -> None:
        """See `Decoder.close`."""
        self._file.close()


def _raise_want(error: soundfile.LibsndfileError) -> None:
    if error.code == _MALLOC_FAILED:
        raise MemoryError(error.error_string) from error
