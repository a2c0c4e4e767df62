"""Scores and modules to sound: fluidsynth and openmpt123, one file at a time, as mono FLAC of 32 kHz."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 32_000
_LONGEST_MODULE = 240  # seconds; some play for ever


class SynthError(Exception):
    """A program that makes sound is missing, or failed; the message says which and why."""


def presets(font: Path) -> list[tuple[int, int, str]]:
    """Bank, program and name of what a soundfont (SF2 or SF3) has, in order."""
    with font.open("rb") as file:
        file.seek(max(0, font.stat().st_size - (16 << 20)))  # the table stands near the end, after the samples
        data = file.read()
    at = data.rfind(b"phdr")
    if at < 0:
        raise SynthError(f"{font} has no table of presets")
    length = struct.unpack("<I", data[at + 4 : at + 8])[0]
    found = []
    for start in range(at + 8, at + 8 + length - 38, 38):  # the last record is a terminator
        name, program, bank = struct.unpack("<20sHH", data[start : start + 24])
        found.append((bank, program, name.partition(b"\0")[0].decode("latin-1").strip()))
    return sorted(found)


def play_midi(midi: bytes, font: Path, target: Path, settings: Mapping[str, object]) -> None:
    """Render a MIDI file with a soundfont.

    Args:
        midi: the file.
        font: the soundfont.
        target: the FLAC file to write, whole or not at all.
        settings: of fluidsynth, such as ``{"synth.reverb.active": 1}``.
    """
    with tempfile.TemporaryDirectory(prefix="render-") as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi)
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        # of a soundfont of 150 MB, one instrument is needed
        options += ["-o", "synth.dynamic-sample-loading=1"]
        command = ["fluidsynth", "-n", "-i", "-q", *options, "-r", str(SAMPLE_RATE), "-O", "float", "-T", "wav"]
        _run([*command, "-F", str(sound), str(font), str(score)])
        _keep(sound, target)


def play_module(module: Path, target: Path) -> None:
    """Render tracker music."""
    with tempfile.TemporaryDirectory(prefix="render-") as folder:
        score = Path(folder, f"module{module.suffix.lower()}")
        shutil.copyfile(module, score)
        options = ["--quiet", "--samplerate", str(SAMPLE_RATE), "--channels", "2", "--output-type", "wav"]
        _run(["openmpt123", *options, "--end-time", str(_LONGEST_MODULE), "--render", str(score)])
        _keep(Path(folder, f"{score.name}.wav"), target)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        raise SynthError(f"{command[0]} is not installed: apt-get install {command[0]}") from None
    said = os.fsdecode(done.stderr).strip()
    # fluidsynth plays on, and returns 0, without a soundfont or with another one
    if done.returncode or "fluidsynth: error" in said:
        raise SynthError(f"{command[0]} failed: {said[-300:]}")


def _keep(sound: Path, target: Path) -> None:
    samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        raise SynthError(f"rendered at {rate} Hz, not {SAMPLE_RATE}")
    mono = samples.mean(1)
    mono *= min(1.0, 0.99 / max(float(np.abs(mono).max(initial=0.0)), 1e-9))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    soundfile.write(partial, mono, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(target)
