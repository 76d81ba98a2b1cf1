"""Requests and answers between gateway and agent, as frames. asyncio streams.

A request is a line of JSON (`path`, `key`, `key_id`, `model`, `ctx_tokens`, `bytes`) and its body: `model` is the one
that turns ask for, where it is another than the client's. An answer is a line of JSON (`status`, `stream`),
then frames of four bytes of length and that many bytes; a frame of length 0 is the regular end. A connection that
closes without it has lost its answer.
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass

LINE_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request of a client, as the gateway hands it over."""

    path: str
    key: str
    body: bytes
    key_id: str = ""
    model: str = ""  # that turns ask for; empty: the one that the client named
    ctx_tokens: int = 0  # of a slot; 0: not known

    def __repr__(self) -> str:
        return f"Asked(path={self.path!r})"  # without the key


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The request on a new connection; None if it ends before it is whole."""
    try:
        head = json.loads(await reader.readline())
        body = await reader.readexactly(int(head["bytes"]))
        return Asked(
            path=str(head["path"]), key=str(head["key"]), body=body, key_id=str(head.get("key_id", "")),
            model=str(head.get("model", "")), ctx_tokens=int(head.get("ctx_tokens", 0)),
        )  # fmt: skip
    except (asyncio.IncompleteReadError, ValueError, KeyError, TypeError, OSError):
        return None


class Answer:
    """One answer being written."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.began = False

    def begin(self, status: int, *, stream: bool) -> None:
        """Send the head of the answer."""
        self.began = True
        self._writer.write(json.dumps({"status": status, "stream": stream}).encode() + b"\n")

    async def send(self, data: bytes) -> None:
        """Send a part, and wait while the gateway does not read. Raises OSError if it is gone."""
        if data:
            self._writer.write(struct.pack(">I", len(data)) + data)
            await self._writer.drain()

    async def end(self) -> None:
        """End the answer regularly."""
        self._writer.write(struct.pack(">I", 0))
        await self._writer.drain()
