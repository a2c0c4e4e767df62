"""Finding, decoding and resampling audio files, block by block."""
