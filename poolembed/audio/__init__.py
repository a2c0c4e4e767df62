"""Finding, decoding and resampling audio files, block by block."""

from poolembed.audio.decode import AudioStream, open_audio
from poolembed.audio.find import AUDIO_SUFFIXES, FoundFile, find_audio
from poolembed.audio.resample import resample_blocks
from poolembed.audio.source import MonoSource, open_source

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioStream",
    "FoundFile",
    "MonoSource",
    "find_audio",
    "open_audio",
    "open_source",
    "resample_blocks",
]
