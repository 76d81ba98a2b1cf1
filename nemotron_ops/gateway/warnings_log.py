"""What the gateway says to its operator. stderr."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Write a line. Where that cannot be written either (the log's disk is full), nothing else may fail by it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Trouble:
    """Something that goes wrong again and again is said once, and so is its end."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.told = False

    def met(self, exc: OSError | str) -> None:
        """It went wrong."""
        if not self.told:
            self.told = True
            why = exc if isinstance(exc, str) else exc.strerror or exc
            say(f"warning: cannot {self.what}: {why}; trying on")

    def over(self, rest: str = "") -> None:
        """It went right."""
        if self.told:
            self.told = False
            say(f"can {self.what} again{rest}")
