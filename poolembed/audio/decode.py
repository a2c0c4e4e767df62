"""One audio file to mono float32 blocks, whatever its format and whatever is wrong with it."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.audio._bitstream import BitstreamDecoder, find_bitstream, sound_is_late
from poolembed.audio._chunks import Chunks, ogg_in_chunks, read_chunks, tags_fit
from poolembed.audio._decoders import DamagedError, Decoder, Part, SndfileDecoder
from poolembed.audio._ffmpeg import FFmpegDecoder, PacketDecoder
from poolembed.audio._ogg import read_links
from poolembed.audio._promise import read_promise
from poolembed.audio._tail import ac3_end
from poolembed.audio._unfinished import PatchedFile, missing_sizes, sample_width
from poolembed.audio.encoding import Encoding
from poolembed.audio.mixing import Downmix
from poolembed.errors import AudioError
from poolembed.files.reading import open_regular

# What libsndfile decodes faster than FFmpeg, by how the file begins; the suffix is never believed.
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"fLaC", b"caff", b".snd")
# How MP3 begins, which libsndfile also reads, but not as well, and not without a word on stderr.
_NOT_FOR_SNDFILE = re.compile(rb"ID3|TAG|\xff[\xe0-\xff]")
# MPEG audio of any layer, and layer III, in the header of a WAV of either byte order.
_MPEG_CODES = (b"\x50\0", b"\x55\0", b"\0\x50", b"\0\x55")


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
        self._file = _open(path)
        try:
            # Before the decoder, which shares the position in the file.
            chunks = read_chunks(self._file)
            self._promise = read_promise(self._file, chunks)
            self._parts = _parts(self._file, chunks)
            self._decoder = _choose_decoder(self._file, chunks, self._parts, self._promise.samples)
        except BaseException:
            self._file.close()
            raise
        if self._promise.samples is None:
            self._promise = self._decoder.promise._replace(cut=self._promise.cut)
        self.sample_rate = self._decoder.sample_rate
        self.note: str | None = None
        self._count = SampleCount()
        self._mix = Downmix(self.sample_rate)
        # Until the first sound it is not known whether the samples are AC-3 or DTS in disguise.
        self._is_unheard = self._decoder.encoding.lossless is not False
        self._pending: list[NDArray[np.float32] | DamagedError | None] = []
        self._undisguised = 0
        self._is_damaged = False
        self._stop: str | None = None

    @property
    def samples(self) -> int:
        """Samples per channel decoded so far."""
        return self._mix.samples

    @property
    def encoding(self) -> Encoding:
        """How the audio is encoded, with the bit rate once `blocks` is exhausted."""
        encoding, payload = self._decoder.encoding, self._decoder.payload
        if encoding.lossless or payload is None or not self.samples:
            return encoding
        return replace(encoding, bitrate=round(payload * 8e-3 * self.sample_rate / self.samples, 1))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The mean of the channels (`Downmix`), once, from the beginning.

        Yields:
            1-D float32 blocks of about 65 536 samples (1.5 s at 44.1 kHz), however long the file is, never empty.

        Raises:
            AudioError: nothing in the file can be decoded, or every sample is NaN or infinite. Files of which a part
                can be decoded raise nothing; see `note`.
        """
        for block in self._mix.blocks(self._decoded()):
            yield self._count.clean(block)
        if not self.samples and (self._is_damaged or self._stop is not None):
            raise AudioError("damaged: nothing in it can be decoded")
        if not self.samples and self._promise.samples:
            raise AudioError(f"truncated: nothing of {self._promise.samples / self.sample_rate:.1f} s can be decoded")
        self.note = "; ".join(self._lost() + self._count.finish() + self._mix.finish()) or None

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        skip = 0
        while True:
            try:
                block = self._read()
            except DamagedError as error:
                self._is_damaged = self._is_damaged or error.is_damage
                if not self._switch(error.rest):
                    self._stop = str(error)
                    return
                skip = 0 if error.rest else self.samples
                continue
            if block is None:
                self._is_damaged = self._is_damaged or self._decoder.errors > 0
                return
            dropped = min(skip, block.shape[1])
            skip -= dropped
            if dropped < block.shape[1]:
                yield block[:, dropped:]

    def _read(self) -> NDArray[np.float32] | None:
        """The decoder's next block; that of another decoder if the samples turn out not to be samples."""
        if self._pending:
            block = self._pending.pop()
            if isinstance(block, DamagedError):
                raise block
            return block
        block = self._decoder.read()
        if block is None or not self._is_unheard:
            return block
        with np.errstate(over="ignore", invalid="ignore"):  # damaged floats may be anything
            return self._undisguise(block)

    def _undisguise(self, block: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """A block, or what it holds if it is the first with any sound and that is AC-3 or DTS."""
        if not (block[:, :64].any() or block.any()):
            return block
        self._is_unheard = False
        blocks = [block]
        if sound_is_late(block):
            try:
                following = self._decoder.read()
            except DamagedError as error:
                self._pending = [error]
            else:
                self._pending = [following]
                blocks += [] if following is None else [following]
        demuxer = find_bitstream(blocks)
        if demuxer is None:
            return block
        self._pending = []
        self._undisguised = self.samples
        self._decoder = BitstreamDecoder(demuxer, blocks, self._decoder)
        return self._decoder.read()

    def _switch(self, rest: Sequence[Part]) -> bool:
        """Go on with what is left, if that is known, or begin again with another decoder; False if there is none."""
        descriptor, old = self._file.fileno(), self._decoder
        if not rest and (isinstance(old, PacketDecoder | BitstreamDecoder) or self._parts is None):
            return False
        old.close()
        try:
            if rest:
                self._decoder = PacketDecoder(descriptor, rest, self.sample_rate)
            elif isinstance(old, FFmpegDecoder):  # what the graph has stepped over is counted again
                self._decoder = PacketDecoder(descriptor, self._parts or ())
            else:
                self._decoder = FFmpegDecoder(descriptor, *(self._parts or ()))
        except AudioError:
            return False
        return self._decoder.sample_rate == self.sample_rate

    def _lost(self) -> list[str]:
        decoded = f"{self.samples / self.sample_rate:.1f} s"
        if self._stop is not None:
            return [f"breaks off after {decoded}: {self._stop}"]
        promised, slack, cut = self._promise
        there = self.samples
        if isinstance(self._decoder, BitstreamDecoder):  # what is promised are the samples that it is disguised as
            there = self._undisguised + self._decoder.consumed
        if promised is not None and there < promised - slack:
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


def _open(path: str) -> BinaryIO:
    try:
        file = open_regular(path)
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from None
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise AudioError("empty file")
    return file


def _parts(file: BinaryIO, chunks: Chunks | None) -> list[Part] | None:
    """What FFmpeg is given of a file: nothing stands for all of it, and None for nothing at all."""
    if chunks is not None:
        if chunks.misfit is None:
            ogg = ogg_in_chunks(file, chunks)
            return [] if ogg is None else [ogg]
        # A chunk that claims more than there is makes FFmpeg take as much memory; behind the samples it can be cut off.
        start = chunks.misfit.start - (24 if chunks.kind == b"riff" else 12 if chunks.kind == b"caff" else 8)
        return [(0, start)] if chunks.samples is not None else None
    file.seek(0)
    if file.read(4) == b"OggS":
        links = read_links(file)
        return links if len(links) > 1 else []
    if not tags_fit(file):
        return None
    end = ac3_end(file)
    return [] if end is None else [(0, end)]


def _choose_decoder(file: BinaryIO, chunks: Chunks | None, parts: list[Part] | None, samples: int | None) -> Decoder:
    file.seek(0)
    descriptor, head = file.fileno(), file.read(4)
    is_stored = head in _SNDFILE_MAGIC and not (chunks is not None and _holds_mpeg(file, chunks))
    reason: AudioError | None = None
    if is_stored:
        width = sample_width(file, chunks)
        with contextlib.suppress(AudioError):
            decoder = SndfileDecoder(PatchedFile(file, width) if width else descriptor, samples)
            if not decoder.is_empty:
                return decoder
            # Or its writer never came back to fill in the length.
            reason = AudioError("no audio samples in it")
        with contextlib.suppress(AudioError):
            if sizes := missing_sizes(file, chunks):
                decoder = SndfileDecoder(PatchedFile(file, sizes | width))
                if not decoder.is_empty:
                    return decoder
    if parts is None:
        raise reason or AudioError("its header is damaged: a chunk of it is larger than the file")
    try:
        return FFmpegDecoder(descriptor, *parts) if len(parts) <= 1 else PacketDecoder(descriptor, parts)
    except AudioError as error:
        # Of a chained Ogg libsndfile reads the first link alone.
        if not is_stored and len(parts) <= 1 and not _NOT_FOR_SNDFILE.match(head):
            with contextlib.suppress(AudioError):
                return SndfileDecoder(descriptor)
        raise (reason or error) from None


def _holds_mpeg(file: BinaryIO, chunks: Chunks) -> bool:
    """Whether a WAV or W64 holds MPEG audio, for which libsndfile takes the decoder that writes to stderr."""
    fmt = chunks.find(b"fmt ")
    if fmt is None:
        return False
    file.seek(fmt.start)
    return file.read(2) in _MPEG_CODES
