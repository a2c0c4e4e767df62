"""Formats that are rare, found below a folder by their suffixes and decoded by their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from poolembed.audio.decode import open_audio
from poolembed.audio.find import find_audio
from tests.conftest import noise
from tests.encoders import encode, shorten

ENCODED = Path(__file__).parent / "encoded"


@pytest.mark.parametrize(
    ("name", "suffix", "codec", "seconds"),
    [
        ("sphere.sph", ".sph", "pcm_s16le", 0.25),
        ("sphere.sph", ".nist", "pcm_s16le", 0.25),
        ("ambisonic.amb", ".amb", "pcm_s16le", 0.25),
        ("gsm.gsm", ".gsm", "gsm", 1.0),
        ("wideband.awb", ".awb", "amr_wb", 0.25),
        ("musepack.mpc", ".mpp", "musepack8", 0.25),
        ("musepack.mpc", ".mp+", "musepack8", 0.25),
        ("core.dtshd", ".dtshd", "dts", 0.25),
        ("real.rm", ".rm", "ac3", 0.25),
        ("sine.mlp", ".mlp", "mlp", 1.2),
        ("sine.thd", ".thd", "truehd", 1.2),
    ],
)
def test_found_and_heard(tmp_path: Path, name: str, suffix: str, codec: str, seconds: float) -> None:
    shutil.copy(ENCODED / name, tmp_path / f"song{suffix}")
    (file,) = find_audio([tmp_path], on_error=lambda *_: None)
    with open_audio(file.path) as stream:
        samples = np.concatenate(list(stream.blocks()))
        assert stream.note is None
        assert stream.encoding.codec == codec
        assert seconds <= len(samples) / stream.sample_rate < seconds + 0.05  # encoders pad
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.abs(samples).max() > 0.3
        # Strings of 220 and 330 Hz, or a sine of 440.
        pitch = float(spectrum.argmax()) * stream.sample_rate / len(samples)
        assert min(abs(pitch - each) for each in (220, 330, 440)) < 4


def test_shorten(tmp_path: Path) -> None:
    expected = (32767 * noise(5000)).astype(np.int16)
    (tmp_path / "a.shn").write_bytes(shorten(expected, 8000))
    (file,) = find_audio([tmp_path], on_error=lambda *_: None)
    with open_audio(file.path) as stream:
        np.testing.assert_array_equal(np.concatenate(list(stream.blocks())) * 32768, expected)
        assert (stream.note, stream.sample_rate) == (None, 8000)
        assert (stream.encoding.codec, stream.encoding.lossless) == ("shorten", True)


def test_enhanced_ac3(tmp_path: Path) -> None:
    encode(tmp_path / "a.ec3", "eac3.ec3", noise(48_000)[:, None], 48_000)
    (file,) = find_audio([tmp_path], on_error=lambda *_: None)
    with open_audio(file.path) as stream:
        assert sum(map(len, stream.blocks())) == pytest.approx(48_000, abs=1536)
        assert stream.encoding.codec == "eac3"
