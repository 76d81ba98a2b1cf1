"""Turns errors of Python and its libraries that no room has translated into one line with cause and hint. Pure.

Rooms translate what they expect where they meet it. This is the last place before a traceback: a disk, a locale or a
missing package must not look like a bug. Anything else is one, and keeps its traceback.
"""

from __future__ import annotations

import errno

from nemotron_ops.errors import HostError, NemotronOpsError

WRITABLE_HINT = "NEMOTRON_OPS_HOME moves all folders of nemotron-ops to a place that you may write"
HINTS = {
    errno.EACCES: WRITABLE_HINT,
    errno.EPERM: WRITABLE_HINT,
    errno.EROFS: WRITABLE_HINT,
    errno.ENOSPC: "make room on that disk, then run the command again",
    errno.EDQUOT: "make room within your disk quota, then run the command again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`), then run the command again",
    errno.ENOTDIR: "a part of that path is a file: move it away, or name another folder",
}


def translated(exc: BaseException) -> NemotronOpsError | None:
    """The error as one of ours; None if it looks like a bug."""
    match exc:
        case UnicodeError():
            return HostError(
                f"cannot convert text: {exc}",
                hint="set a UTF-8 locale, such as LC_ALL=C.UTF-8, or save the file as UTF-8",
            )
        case ImportError() if "socksio" in str(exc):
            return HostError(
                "cannot use a SOCKS proxy: the Python package socksio is not installed",
                hint="pip install socksio, or set HTTPS_PROXY to an HTTP proxy",
            )
        case OSError() if exc.errno is not None and exc.filename is not None:
            reason = exc.strerror or str(exc)
            return HostError(f"cannot use {_name(exc.filename)}: {reason}", hint=HINTS.get(exc.errno, ""))
        case OSError() if exc.errno in HINTS:
            return HostError(f"cannot go on: {exc.strerror or exc}", hint=HINTS[exc.errno])
    return None


def _name(filename: object) -> str:
    return filename.decode(errors="replace") if isinstance(filename, bytes) else str(filename)
