"""``python -m poolembed``, which is also how ``torchrun`` starts the command line, and what ``poolembed`` runs."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def main() -> None:
    """Run the command line. A Ctrl-C while it is being imported has nothing to finish, and shows no traceback."""
    signal.signal(signal.SIGINT, _leave)
    from poolembed.cli import main as run

    run()


if __name__ == "__main__":
    main()
