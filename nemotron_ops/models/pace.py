"""Watches the answer of one download: a web page in place of the file, or hardly a byte. Clock."""

from __future__ import annotations

import time

from nemotron_ops.errors import ModelError
from nemotron_ops.models.refusals import Stalled

LEAST_BYTES = 64 << 10  # that an answer must bring, cut short or in `stall_s`, to count as progress
WEB_PAGES = (b"<html", b"<!doc")  # no part of a GGUF file starts so, other than by a chance of 1 in 10^12


class Pace:
    """Watches one answer: a web page in place of the file, or a server that sends hardly a byte."""

    def __init__(self, *, stall_s: float, name: str) -> None:
        self._stall_s, self._name = stall_s, name
        self._began, self._bytes, self._first = time.monotonic(), 0, True

    def check(self, chunk: bytes) -> None:
        """Raise ModelError for a web page, Stalled if fewer than LEAST_BYTES came in `stall_s`."""
        if self._first and chunk[:5].lower() in WEB_PAGES:
            raise ModelError(
                f"cannot fetch {self._name}: a web page was sent instead of the file",
                hint="check HF_ENDPOINT and any proxy",
            )
        self._first = False
        self._bytes += len(chunk)
        if (took := time.monotonic() - self._began) >= self._stall_s:
            if self._bytes < LEAST_BYTES:
                raise Stalled(f"cannot fetch {self._name}: only {self._bytes:,} bytes came in {took:.0f} s")
            self._began, self._bytes = time.monotonic(), 0
