"""Whose vectors they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What has to agree for two embeddings to be comparable. The name is for people; the fingerprint decides."""

    name: str
    fingerprint: str
    embedding_size: int
