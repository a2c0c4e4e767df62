"""Memory and open files that run out while a song is decoded: it fails, and never comes out as something else."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from poolembed.audio import _bitstream, _decoders, _ffmpeg
from poolembed.audio.decode import open_audio
from poolembed.audio.faults import reason_of
from poolembed.audio.source import open_source
from poolembed.audio.tags import Tags, read_tags
from poolembed.errors import AudioError
from tests.audio.sounds import pyav, sndfile, tone
from tests.audio.test_decode_disguised import spdif_dts

RATE = 44_100


def songs(folder: Path) -> dict[str, Path]:
    """A song of each way through the decoders, by what it is."""
    link, other = (sndfile(tone(pitch, rate, 2), rate, "OGG", "VORBIS") for pitch, rate in ((440, RATE), (880, 48_000)))
    flac = sndfile(tone(440, RATE), RATE, "FLAC")
    data = {
        "wav": sndfile(tone(440, RATE), RATE, "WAV"),
        "flac": flac,
        "joined flac": flac + flac,
        "ogg": link,
        "chained ogg": link + other + link,
        "mp3": pyav(folder / "mp3", "mp3", ("libmp3lame", tone(440, RATE), RATE)),
        "m4a": pyav(folder / "m4a", "ipod", ("aac", tone(440, RATE), RATE)),
        "wav that holds dts": sndfile(spdif_dts(), RATE, "WAV"),
        "two mp3 with a tag between": pyav(folder / "one", "mp3", ("libmp3lame", tone(440, RATE), RATE)) * 2,
    }
    for name, one in data.items():
        (folder / name).write_bytes(one)
    return {name: folder / name for name in data}


def heard(path: Path) -> tuple[bytes, str | None]:
    """Samples and note."""
    with open_source(path, RATE) as song:
        samples = b"".join(block.tobytes() for block in song.blocks())
        return samples, song.note


@contextmanager
def spare_files(number: int) -> Iterator[None]:
    """Only so many more files may be opened inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    top = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    while taken[-1] < top:  # the gaps below the highest
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(*taken, top) + 1 + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the open files of a process are listed elsewhere")
def test_a_song_without_files_to_open_fails_or_is_as_ever(tmp_path: Path) -> None:
    for name, path in songs(tmp_path).items():
        expected = heard(path)
        told = set()
        for number in range(6):
            try:
                with spare_files(number):
                    there = heard(path)
            except AudioError as error:
                assert error.message.endswith("Too many open files"), (name, number, error.message)
                told.add(error.message)
            else:
                assert there == expected, (name, number)
        assert told, f"{name} opens nothing"
        assert there == expected, f"{name} opens more than is tried"


class Failing:
    """Every call of a function from the n-th on fails, as it does when something has run out."""

    def __init__(self, true: Callable[..., Any], error: BaseException, first: int) -> None:
        self._true, self._error, self._left = true, error, first
        self.failed = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            self.failed = True
            raise self._error
        return self._true(*arguments, **named)


NO_MEMORY = av.error.MemoryError(errno.ENOMEM, os.strerror(errno.ENOMEM))
NO_FILES = av.error.OSError(errno.ENFILE, os.strerror(errno.ENFILE))


@pytest.mark.parametrize("error", [NO_MEMORY, NO_FILES], ids=["memory", "files"])
@pytest.mark.parametrize("module", [_ffmpeg, _bitstream], ids=["_ffmpeg", "_bitstream"])
def test_no_other_decoder_or_link_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, error: Exception
) -> None:
    tried = 0
    for name, path in songs(tmp_path).items():
        expected = heard(path)
        for first in range(12):
            opening = Failing(av.open, error, first)
            with monkeypatch.context() as patch:
                patch.setattr(module.av, "open", opening)
                try:
                    there = heard(path)
                except AudioError as raised:
                    assert opening.failed, (name, first)
                    assert raised.message == reason_of(type(error).__mro__[2](*error.args), "")
                    tried += 1
                else:
                    assert not opening.failed, (name, first)
                    assert there == expected, (name, first)
                    break
    assert tried > 8


def test_memory_that_runs_out_in_the_midst_fails_the_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = songs(tmp_path)["m4a"]

    class Sink:
        def pull(self) -> Any:
            raise NO_MEMORY

    with open_audio(str(song)) as stream:
        monkeypatch.setattr(stream._decoder, "_sink", Sink())
        with pytest.raises(MemoryError):
            next(stream.blocks())
    with pytest.raises(AudioError, match="not enough memory"), open_source(song, RATE) as source:
        monkeypatch.setattr(source._stream._decoder, "_sink", Sink())  # type: ignore[attr-defined]
        next(source.blocks())


def test_memory_that_libsndfile_lacks_fails_the_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = songs(tmp_path)["flac"]
    lacking = soundfile.LibsndfileError(_decoders._MALLOC_FAILED)
    assert "malloc" in lacking.error_string
    with monkeypatch.context() as patch:
        patch.setattr(_decoders, "_SequentialFile", Failing(_decoders._SequentialFile, lacking, 0))
        with pytest.raises(AudioError, match="not enough memory"):
            open_source(song, RATE)
    with pytest.raises(AudioError, match="not enough memory"), open_source(song, RATE) as source:
        patched = Failing(np.empty, lacking, 0)
        monkeypatch.setattr(source._stream._decoder._file, "read", patched)  # type: ignore[attr-defined]
        next(source.blocks())


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_now_is_no_fault_of_poolembed(code: int) -> None:
    assert reason_of(OSError(code, os.strerror(code)), "a.wav") == f"cannot be read: {os.strerror(code)}"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the open files of a process are listed elsewhere")
def test_tags_that_cannot_be_read_now_are_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "a.wv"  # asked of FFmpeg
    path.write_bytes(pyav(tmp_path / "b", "wv", ("wavpack", tone(440, RATE), RATE)))
    path.with_suffix(".wav").write_bytes(sndfile(tone(440, RATE), RATE, "WAV"))
    for song in (path, path.with_suffix(".wav")):
        assert read_tags(song) == Tags()
        with spare_files(0), pytest.raises(AudioError, match=r"the tags of .*a\.wa?v: .*Too many open files"):
            read_tags(song)
