"""Names of files are bytes and text is Unicode, whatever the locale says."""

from __future__ import annotations

import io
import os
import sys


def speak_utf8() -> None:
    """See to it that every name of a file can be read, opened and written, whatever it holds and whatever the locale.

    A manifest holds names as text, and which bytes those are depends on the encoding that Python takes from the locale:
    under ISO-8859-1 a collection in UTF-8 would not be found again, and some names could not even be said. So on POSIX
    it is always UTF-8 with the bytes that are none escaped: where Python began otherwise, it begins once more, with the
    same arguments. And what standard output cannot encode, as on Windows into a pipe, it shows escaped.
    """
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
