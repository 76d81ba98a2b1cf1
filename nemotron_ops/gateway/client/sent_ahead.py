"""Holds bytes that a client sends while its earlier request is being answered, up to a bound. Pure."""

from __future__ import annotations

from nemotron_ops.gateway.api.errors import Refusal

HELD_BYTES = 1 << 18


class SentAhead:
    """The next requests of a pipeline. Beyond the bound, bytes are dropped: pausing the socket would hide its end."""

    __slots__ = ("_parts", "_size", "overfull")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.overfull = False

    def hold(self, data: bytes) -> None:
        """Keep `data`, or nothing from here on if that would be too much."""
        if self._size + len(data) > HELD_BYTES:
            self.overfull = True
        if not self.overfull:
            self._parts.append(data)
            self._size += len(data)

    def take(self) -> bytes:
        """What was held; nothing is held afterwards."""
        held = b"".join(self._parts)
        self._parts, self._size = [], 0
        return held


def refusal() -> Refusal:
    """The answer to a client that has sent more than is held."""
    message = f"more than {HELD_BYTES} bytes were sent ahead while an earlier request was being answered"
    return Refusal(status=400, code="sent_ahead", message=message)
