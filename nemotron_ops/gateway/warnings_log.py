"""Writes warnings for the operator, a recurring failure only once. stderr."""

from __future__ import annotations

import contextlib
import sys
import traceback


def say(text: str) -> None:
    """Write one line. Raises nothing: a full disk under the log must not fail a request."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def log_bug(exc: BaseException) -> None:
    """Log where an unexpected exception was raised, without its message: that may hold a request's content."""
    frames = "".join(traceback.format_tb(exc.__traceback__))
    say(f"bug in the gateway: Traceback:\n{frames}{type(exc).__name__}")


class OnceLog:
    """Logs a recurring failure once, and its recovery once."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.logged = False

    def failed(self, exc: OSError | str) -> None:
        """The action failed."""
        if not self.logged:
            self.logged = True
            why = exc if isinstance(exc, str) else exc.strerror or exc
            say(f"warning: cannot {self.action}: {why}; retrying")

    def recovered(self, note: str = "") -> None:
        """The action succeeded."""
        if self.logged:
            self.logged = False
            say(f"can {self.action} again{note}")
