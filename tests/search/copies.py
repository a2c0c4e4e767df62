"""Songs that were embedded, as far as a manifest and vectors can tell; their audio is a few real files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile

from poolembed.audio.decode import open_audio
from poolembed.audio.find import FoundFile
from poolembed.embed.outputs import open_output
from poolembed.embed.song import Embedded
from poolembed.errors import AudioError
from poolembed.identity import ModelIdentity
from tests.conftest import noise

FINGERPRINT = "f" * 64


def direction(degrees: float) -> list[float]:
    """A unit vector of the plane."""
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def write(path: Path, seconds: float = 1.0, rate: int = 16_000, channels: int = 1, **how: Any) -> Path:
    """Write noise in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = noise(round(seconds * rate))
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate, **how)
    return path


def embedded(
    folder: Path,
    songs: Mapping[str, float | tuple[float, float]],
    format: Literal["npy", "matrix", "parquet", "jsonl"] = "matrix",
    *,
    encodings: bool = True,
    notes: Mapping[str, str] | None = None,
    fingerprint: str = FINGERPRINT,
) -> Path:
    """What ``poolembed embed FOLDER/songs`` leaves in ``FOLDER/out``.

    Args:
        folder: has the audio in ``songs``, as far as there is any.
        songs: name below ``songs`` -> direction of its vector in degrees, or direction and seconds (60 if not given).
        format: of the output.
        encodings: also keep how files that are there are encoded, and what is wrong with them.
        notes: name -> what to say was wrong instead.
        fingerprint: of the model, which is called m.
    """
    identity = ModelIdentity("m", fingerprint, 2)
    out = folder / "out"
    with open_output(out, format=format, dtype="float32", timestamps=None, model=identity, overwrite=True) as output:
        for job in output.plan([FoundFile(str(folder / "songs" / name), name, "songs") for name in songs]).todo:
            value = songs[job.key]
            degrees, seconds = value if isinstance(value, tuple) else (value, 60.0)
            song = Embedded(0, np.array(direction(degrees), np.float32), seconds)
            if encodings and Path(job.path).is_file():
                with suppress(AudioError), open_audio(job.path) as stream:
                    for _ in stream.blocks():
                        pass
                    note = (notes or {}).get(job.key, stream.note)
                    song = replace(song, encoding=stream.encoding, note=note)
            output.write(job, song)
    return out
