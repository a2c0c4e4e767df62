"""Where embeddings go: a directory in one of four formats, resumable, or a stream of JSON Lines."""

from poolembed.embed.outputs.directory import OutputDirectory, open_output
from poolembed.embed.outputs.lines import JsonLinesStream
from poolembed.embed.outputs.plan import Job, Plan

__all__ = ["Job", "JsonLinesStream", "OutputDirectory", "Plan", "open_output"]
