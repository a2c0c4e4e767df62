"""One audio file to mono float32 blocks, whatever its format and whatever is wrong with it."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.audio._decoders import DamagedError, Decoder, SndfileDecoder
from poolembed.audio._ffmpeg import FFmpegDecoder, PacketDecoder
from poolembed.audio._promise import read_promise
from poolembed.errors import AudioError

# What libsndfile decodes faster than FFmpeg, by how the file begins; the suffix is never believed.
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"caff", b".snd")


UNSCALED = "full scale is 1, and samples reach"
"""How the note of a song begins whose samples can hardly be meant as they are."""

# 24 dB above full scale: floats go past it by a few dB when a mix is too loud, and far past it when they are integers.
_UNSCALED = 16.0


class SampleCount:
    """Counts the samples of one source and puts 0 for those that are not finite.

    Attributes:
        total: samples seen.
        replaced: how many of them were NaN or infinite.
        peak: the largest magnitude of the others.
    """

    def __init__(self) -> None:
        self.total = 0
        self.replaced = 0
        self.peak = 0.0

    def clean(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The 1-D block, or where it needs it a repaired copy."""
        self.total += len(block)
        peak = _peak(block)
        if not math.isfinite(peak):
            finite = np.isfinite(block)
            self.replaced += len(block) - int(np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
            peak = _peak(block)
        self.peak = max(self.peak, peak)
        return block

    def finish(self) -> list[str]:
        """What was wrong with the samples.

        Raises:
            AudioError: there were none, or none that are finite.
        """
        if not self.total:
            raise AudioError("no audio samples in it")
        if self.replaced == self.total:
            raise AudioError("every sample is NaN or infinite")
        notes = [f"{self.replaced} NaN or infinite samples taken as 0"] if self.replaced else []
        if self.peak >= _UNSCALED:
            notes.append(f"{UNSCALED} {self.peak:.6g}: are they integers that were not scaled?")
        return notes


def _peak(block: NDArray[np.float32]) -> float:
    """The largest magnitude; NaN or infinite if there is a sample that is."""
    return max(float(block.max()), -float(block.min())) if len(block) else 0.0


class AudioStream:
    """A file being decoded; from `open_audio`. A context manager that closes everything, even if abandoned halfway.

    Attributes:
        sample_rate: in Hz.
        note: once `blocks` is exhausted, what was wrong with the file though it was decoded, such as
            "truncated: 12.3 s of 30.0 s decoded"; None if nothing was.
    """

    def __init__(self, path: str) -> None:
        self._file = _open_regular(path)
        try:
            # Before the decoder, which shares the position in the file.
            self._promise = read_promise(self._file)
            self._decoder = _choose_decoder(self._file)
        except BaseException:
            self._file.close()
            raise
        if self._decoder.promise.samples is not None:
            self._promise = self._decoder.promise._replace(cut=self._promise.cut)
        self.sample_rate = self._decoder.sample_rate
        self.note: str | None = None
        self._count = SampleCount()
        self._is_damaged = False
        self._stop: str | None = None

    @property
    def samples(self) -> int:
        """Samples per channel decoded so far."""
        return self._count.total

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The mean of the channels, once, from the beginning.

        Yields:
            1-D float32 blocks of about 65 536 samples (1.5 s at 44.1 kHz), however long the file is, never empty.

        Raises:
            AudioError: nothing in the file can be decoded, or every sample is NaN or infinite. Files of which a part
                can be decoded raise nothing; see `note`.
        """
        for block in self._decoded():
            yield self._count.clean(block)
        if not self.samples and (self._is_damaged or self._stop is not None):
            raise AudioError("damaged: nothing in it can be decoded")
        self.note = "; ".join(self._lost() + self._count.finish()) or None

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        skip = 0
        while True:
            try:
                block = self._decoder.read()
            except DamagedError as error:
                if not self._switch():
                    self._stop = str(error)
                    return
                skip = self.samples
                continue
            self._is_damaged = self._is_damaged or self._decoder.errors > 0
            if block is None:
                return
            dropped = min(skip, len(block))
            skip -= dropped
            if dropped < len(block):
                yield block[dropped:]

    def _switch(self) -> bool:
        """Begin again with the decoder that may go on where this one stopped; False if there is none."""
        if isinstance(self._decoder, PacketDecoder):
            return False
        is_graph = isinstance(self._decoder, FFmpegDecoder)
        # FFmpeg steps over damage where libsndfile stops; what its graph stops at is a change, and no damage.
        self._is_damaged = self._is_damaged or not is_graph
        self._decoder.close()
        try:
            self._decoder = (PacketDecoder if is_graph else FFmpegDecoder)(self._file.fileno())
        except AudioError:
            return False
        return self._decoder.sample_rate == self.sample_rate

    def _lost(self) -> list[str]:
        decoded = f"{self.samples / self.sample_rate:.1f} s"
        if self._stop is not None:
            return [f"breaks off after {decoded}: {self._stop}"]
        promised, slack, cut = self._promise
        if promised is not None and self.samples < promised - slack:
            what = "damaged or truncated" if self._is_damaged else "truncated"
            return [f"{what}: {decoded} of {promised / self.sample_rate:.1f} s decoded"]
        if cut:
            return [f"truncated: breaks off after {decoded}"]
        return ["damaged: parts of it could not be decoded"] if self._is_damaged else []

    def close(self) -> None:
        """Close the file. Can be called again."""
        self._decoder.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_audio(path: str) -> AudioStream:
    """Open a file in any format that libsndfile or FFmpeg reads, going by its content and not by its suffix.

    Any number of threads can decode files of their own at the same time; the GIL is free while they do.

    Args:
        path: the file; bytes that are not UTF-8 surrogate-escaped.

    Raises:
        AudioError: it is not there, not readable, not a regular file, or not audio.
    """
    return AudioStream(path)


def _open_regular(path: str) -> BinaryIO:
    try:
        # Non-blocking, or opening a named pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from None
    except ValueError:  # a NUL in it
        raise AudioError("cannot be opened: not a file name") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise AudioError("is a directory")
    raise AudioError("empty file" if stat.S_ISREG(status.st_mode) else "not a regular file")


def _choose_decoder(file: BinaryIO) -> Decoder:
    file.seek(0)
    descriptor, is_stored = file.fileno(), file.read(4) in _SNDFILE_MAGIC
    reason: AudioError | None = None
    if is_stored:
        with contextlib.suppress(AudioError):
            decoder = SndfileDecoder(descriptor)
            if not decoder.is_empty:
                return decoder
            # Or its writer never came back to fill in the length. FFmpeg then goes by the size of the file.
            reason = AudioError("no audio samples in it")
    try:
        return FFmpegDecoder(descriptor)
    except AudioError as error:
        if not is_stored:
            with contextlib.suppress(AudioError):
                return SndfileDecoder(descriptor)
        raise (reason or error) from None
