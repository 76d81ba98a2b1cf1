"""The gateway, as a client with a key of its own. asyncio, httpx.

So admission, fairness, quotas, continuation after an engine's death and metrics hold for the page too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from nemotron_ops.studio.neighbours.beat import Beat
from nemotron_ops.studio.neighbours.deltas import Delta, Events
from nemotron_ops.studio.neighbours.parameters import asked_model
from nemotron_ops.studio.neighbours.streamed import Broken, Streamed, Unreachable, posted

FIRST_S = 900.0  # until the first byte: a request may wait in the queue, or for a model that loads
MOST_ERROR = 65536
MOST_METRICS = 4 << 20
RENEWED_S = (0.2, 0.5, 1.0, 2.0)  # a gateway reads new keys within a second or two
Renew = Callable[[], Awaitable[bool]]


class GatewayRefused(Exception):
    """The gateway or the engine answers with an error; the text is for people."""


class GatewayLost(GatewayRefused):
    """An answer broke off: its connection ended before it did."""


@dataclass
class Answer:
    """One streamed answer."""

    response: Streamed
    made_by: dict[str, Any]
    id: str = ""
    events: Events = field(default_factory=Events)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Its events as they come. Raises GatewayLost where the connection breaks."""
        try:
            async for gulp in self.response.chunks():
                for delta in self.events.feed(gulp):
                    self.id = self.id or delta.id
                    yield delta
        except (Broken, TimeoutError) as exc:
            raise GatewayLost(f"the connection to the endpoint broke: {str(exc) or 'it fell silent'}") from exc


class Gateway:
    """A client of the endpoint at `base`, which ends in /v1. `key_file` holds its key, and may change."""

    def __init__(self, base: str, *, key_file: Path | None = None, ca: str = "", renew: Renew | None = None) -> None:
        self.base, self._key_file, self._renew = base.rstrip("/"), key_file, renew
        self.beat = Beat()
        self._renewing = asyncio.Lock()
        self._tls = ssl.create_default_context(cafile=ca or None) if self.base.startswith("https:") else None
        timeout = httpx.Timeout(FIRST_S, connect=5.0)
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(trust_env=False, timeout=timeout, limits=limits, verify=self._tls or True)

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
            async with self._posted(body) as response:
                if response.status != 401 or not await self._has_new_key():
                    yield await self._begun(response, body)
                    return
            async with self._posted(body) as response:
                yield await self._begun(response, body)
        except Unreachable as exc:
            raise GatewayRefused("the endpoint cannot be reached: is it running?") from exc
        except (Broken, TimeoutError) as exc:
            raise GatewayRefused(f"the endpoint does not answer: {str(exc) or 'it is silent'}") from exc

    def _posted(self, body: dict[str, Any]) -> AbstractAsyncContextManager[Streamed]:
        url, data = f"{self.base}/chat/completions", msgspec.json.encode(body)
        return posted(url, data, self._headers, context=self._tls, wait_s=FIRST_S, beat=self.beat)

    async def _begun(self, response: Streamed, body: dict[str, Any]) -> Answer:
        if response.status != 200:
            raise GatewayRefused(_said(response.status, await response.body(MOST_ERROR)))
        return Answer(response, {"model": body.get("model", ""), "instance": response.headers.get("x-instance", "")})

    async def end_thinking(self, answer: Answer) -> bool:
        """Ask the engine to end the thinking of a running answer."""
        status, value = await self.post("/chat/completions/control", {"id": answer.id, "action": "reasoning_end"})
        return status == 200 and bool(value and value.get("success"))

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a route below /v1; status 0 where it cannot be reached."""
        status, value = await self._plain("GET", path, None)
        if status == 401 and await self._has_new_key():
            return await self._plain("GET", path, None)
        return status, value

    async def asked_model(self, model: str, thinking: bool | None) -> str:
        """The name to ask for: without thinking, the model's profile for that."""
        if thinking is not False:
            return model
        status, value = await self.get("/models")
        cards = value.get("data", []) if status == 200 and isinstance(value, dict) else []
        return asked_model(model, thinking, cards)

    async def post(self, path: str, body: dict[str, Any], *, native: bool = False) -> tuple[int, Any]:
        """Status and JSON of a POST below /v1, or of a native route; status 0 where it cannot be reached."""
        return await self._plain("POST", path, body, native=native)

    async def metrics(self) -> str:
        """The gateway's metrics in Prometheus' text format; "" where it gives none."""
        try:
            url = self.base.removesuffix("/v1") + "/metrics"
            answer = await self._http.get(url, headers=self._headers, timeout=httpx.Timeout(5.0))
        except httpx.HTTPError:
            return ""
        return answer.text[:MOST_METRICS] if answer.status_code == 200 else ""

    async def _has_new_key(self) -> bool:
        """Whether the endpoint, which asks for keys since, takes the page's key now; it is renewed if need be."""
        if self._renew is None:
            return False
        async with self._renewing:
            if await self._accepted():
                return True
            if not await self._renew():
                return False
            for wait_s in RENEWED_S:
                if await self._accepted():
                    return True
                await asyncio.sleep(wait_s)
        return False

    async def _accepted(self) -> bool:
        status, _ = await self._plain("GET", "/models", None)
        return status != 401

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
    try:
        value = msgspec.json.decode(body[:MOST_ERROR])
        error = value["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the endpoint answers {status}"
