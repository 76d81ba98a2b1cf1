"""Holds the events of an engine's calls until their arguments are whole, so that they can be healed. Pure."""

from __future__ import annotations

MOST_BYTES = 262_144  # of events; larger calls go out as they come
COMMENT = b":\n\n"  # keeps proxies from closing a silent stream
COMMENT_EVERY = 64  # events


class HeldCalls:
    """The events of the calls of one answer. `whole`: all of them are held."""

    def __init__(self, *, active: bool) -> None:
        self.whole = active
        self._events: list[bytes] = []
        self._size = 0

    def add(self, event: bytes) -> bytes:
        """Hold an event; returns what goes out instead of it."""
        if not self.whole:
            return event
        self._events.append(event)
        self._size += len(event)
        if self._size > MOST_BYTES:
            return self.release()
        return COMMENT if len(self._events) % COMMENT_EVERY == 0 else b""

    def release(self) -> bytes:
        """The held events; later ones go out as they come."""
        self.whole = False
        return self.take()

    def take(self) -> bytes:
        """The held events, which are held no more."""
        events, self._events = b"".join(self._events), []
        return events
