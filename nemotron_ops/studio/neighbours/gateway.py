"""The gateway, as a client with a key of its own. httpx.

So admission, fairness, quotas, continuation after an engine's death and metrics hold for the page too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nemotron_ops.studio.neighbours.deltas import Delta, Events

FIRST_S = 900.0  # until the first byte: a request may wait in the queue, or for a model that loads
MOST_ERROR = 65536


class GatewayRefused(Exception):
    """The gateway or the engine answers with an error; the text is for people."""


@dataclass
class Answer:
    """One streamed answer."""

    response: httpx.Response
    made_by: dict[str, Any]
    id: str = ""
    events: Events = field(default_factory=Events)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Its events as they come. Raises GatewayRefused where the connection breaks."""
        try:
            async for chunk in self.response.aiter_raw():
                for delta in self.events.feed(chunk):
                    self.id = self.id or delta.id
                    yield delta
        except httpx.HTTPError as exc:
            raise GatewayRefused(f"the connection to the endpoint broke: {str(exc) or type(exc).__name__}") from exc


class Gateway:
    """A client of the endpoint at `base`, which ends in /v1. `key_file` holds its key, and may change."""

    def __init__(self, base: str, *, key_file: Path | None = None, ca: str = "") -> None:
        self.base, self._key_file = base.rstrip("/"), key_file
        timeout = httpx.Timeout(FIRST_S, connect=5.0)
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(trust_env=False, timeout=timeout, limits=limits, verify=ca or True)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @property
    def _headers(self) -> dict[str, str]:
        try:
            key = self._key_file.read_text().strip() if self._key_file else ""
        except OSError:
            key = ""
        return {"Authorization": f"Bearer {key}"} if key else {}

    @asynccontextmanager
    async def ask(self, body: dict[str, Any]) -> AsyncIterator[Answer]:
        """A streamed chat. Raises GatewayRefused."""
        try:
            async with self._http.stream(
                "POST", f"{self.base}/chat/completions", json=body, headers=self._headers
            ) as response:
                if response.status_code != 200:
                    raise GatewayRefused(_said(response.status_code, await response.aread()))
                made_by = {"model": body.get("model", ""), "instance": response.headers.get("x-instance", "")}
                yield Answer(response, made_by)
        except httpx.ConnectError as exc:
            raise GatewayRefused("the endpoint cannot be reached: is it running?") from exc
        except httpx.HTTPError as exc:
            raise GatewayRefused(f"the endpoint does not answer: {str(exc) or type(exc).__name__}") from exc

    async def end_thinking(self, answer: Answer) -> bool:
        """Ask the engine to end the thinking of a running answer."""
        status, value = await self.post("/chat/completions/control", {"id": answer.id, "action": "reasoning_end"})
        return status == 200 and bool(value and value.get("success"))

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a route below /v1; status 0 where it cannot be reached."""
        return await self._plain("GET", path, None)

    async def post(self, path: str, body: dict[str, Any], *, native: bool = False) -> tuple[int, Any]:
        """Status and JSON of a POST below /v1, or of a native route; status 0 where it cannot be reached."""
        return await self._plain("POST", path, body, native=native)

    async def _plain(
        self, method: str, path: str, body: dict[str, Any] | None, *, native: bool = False
    ) -> tuple[int, Any]:
        try:
            answer = await self._http.request(
                method,
                (self.base.removesuffix("/v1") if native else self.base) + path,
                json=body,
                headers=self._headers,
                timeout=httpx.Timeout(30.0, connect=5.0),
            )
            return answer.status_code, answer.json()
        except (httpx.HTTPError, ValueError):
            return 0, None


def _said(status: int, body: bytes) -> str:
    """The words of an error of the API."""
    import msgspec

    try:
        value = msgspec.json.decode(body[:MOST_ERROR])
        error = value["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the endpoint answers {status}"
