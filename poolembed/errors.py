"""Every error that poolembed raises on purpose.

    PoolembedError              what happened, which file, and what to do about it
    ├── UsageError              options that contradict each other or mean nothing
    ├── BundleError             a model on disk that cannot be used
    │   └── BundleNotFoundError no bundle of that name or path
    ├── LabelsError             a folder or table of labelled clips that cannot be used
    ├── TrainingError           a training run that cannot go on
    ├── VectorsError            vectors on disk that cannot be read, or do not belong to the clips
    ├── AudioError              one audio file that cannot be embedded; the others are unaffected
    ├── OutputError             an output directory that cannot be written or does not match the run
    ├── NothingFoundError       no audio file where the user pointed
    └── FilesFailedError        some files of a batch failed, after all the others succeeded

Library code raises these and never prints or exits; the command line turns them into a message and an exit code.
"""

from __future__ import annotations

from collections.abc import Mapping


class PoolembedError(Exception):
    """Base of every deliberate error.

    Args:
        message: what happened, naming the file.
        hint: what the user can do about it, or None where the message says it all.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(PoolembedError):
    """Options that contradict each other or mean nothing."""


class BundleError(PoolembedError):
    """A model on disk that cannot be used: unknown format, unknown key, wrong or damaged weights."""


class BundleNotFoundError(BundleError):
    """No bundle of that name or path; the message lists the names there are."""


class LabelsError(PoolembedError):
    """A folder or table of labelled clips that cannot be read or divided; the message names the line, or the labels."""


class TrainingError(PoolembedError):
    """A training run that cannot go on, or cannot start."""


class VectorsError(PoolembedError):
    """Vectors on disk that cannot be read, are no vectors, or do not belong to the clips at hand."""


class AudioError(PoolembedError):
    """One audio file that cannot be embedded. The message is its reason, without the path."""


class OutputError(PoolembedError):
    """An output directory that cannot be written, is in use, or holds embeddings of another model or setting."""


class NothingFoundError(PoolembedError):
    """No audio file where the user pointed."""


class FilesFailedError(PoolembedError):
    """Some files of a batch failed, after every other file was embedded.

    Attributes:
        failures: path -> reason.
    """

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        shown = "; ".join(f"{path}: {reason}" for path, reason in list(self.failures.items())[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        super().__init__(f"{len(self.failures)} file(s) could not be embedded: {shown}{more}")
