"""Tags in some other encoding than UTF-8 are no reason not to listen, with any version of PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio

RATE = 44_100
PLAIN = b"PLACE OF A TITLE"
TITLES = {
    "latin-1": b"Caf\xe9 des \xe9toiles",
    "shift-jis": b"\x83e\x83X\x83g\x93\xae\x89\xe6\x81\x80\x96\xbc\x82\x50",
    "bytes": b"\xff\xfe\x80" * 5 + b"\xc3",
}
FORMATS = {"mp3": "libmp3lame", "mp4": "aac", "matroska": "aac", "avi": "libmp3lame", "flac": "flac", "adts": "aac"}


def tone() -> NDArray[np.float32]:
    time = np.arange(RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def tagged(path: Path, container: str, title: bytes) -> None:
    """A second of a tone whose title, of file and stream where the container has both, is these bytes."""
    assert len(title) == len(PLAIN)
    with av.open(str(path), "w", format=container, options={"write_id3v2": "1"} if container == "adts" else {}) as out:
        stream = out.add_stream(FORMATS[container], rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        out.metadata["title"] = stream.metadata["title"] = PLAIN.decode()
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", RATE, stream.codec_context.frame_size or 1024
        )
        whole = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
        whole.sample_rate, whole.pts = RATE, 0
        for frame in [*resampler.resample(whole), *resampler.resample(None)]:
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    written = path.read_bytes()
    assert PLAIN in written
    path.write_bytes(written.replace(PLAIN, title))


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("container", FORMATS)
def test_tags_in_any_encoding(tmp_path: Path, container: str, title: str) -> None:
    tagged(tmp_path / "plain", container, PLAIN)
    tagged(tmp_path / "odd", container, TITLES[title])
    heard = []
    for name in ("plain", "odd"):
        with open_audio(str(tmp_path / name)) as stream:
            heard.append(np.concatenate(list(stream.blocks())))
        assert stream.note is None
    np.testing.assert_array_equal(heard[0], heard[1])
    assert 0.19 < np.sqrt(np.mean(heard[0] ** 2)) < 0.22


@pytest.mark.parametrize("container", sorted(FORMATS.keys() - {"flac"}))
def test_pyav_by_itself_minds_them_or_keeps_the_bytes(tmp_path: Path, container: str) -> None:
    # Or else the test above would not show anything.
    tagged(tmp_path / "odd", container, TITLES["latin-1"])
    if int(av.__version__.split(".")[0]) < 19:
        with pytest.raises(UnicodeDecodeError):
            av.open(str(tmp_path / "odd"))
        return
    with av.open(str(tmp_path / "odd")) as opened:
        title = opened.metadata.get("title") or opened.streams[0].metadata["title"]
    assert title.encode("utf-8", "surrogateescape") == TITLES["latin-1"]
