"""One turn: asks the gateway in the client's own API, with the client's key. httpx."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx


class TurnError(Exception):
    """The gateway's own error: its status and body, for the client."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.body = status, body


class Turns:
    """A client of the gateway, and how often the own client hears of it."""

    def __init__(self, endpoint: str, ca: str = "", keep_alive_s: float = 10.0) -> None:
        self.keep_alive_s = keep_alive_s  # between comments to the client while there is no turn
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        # The gateway bounds the time of a request; a timeout of its own would cut long prompts.
        self._http = httpx.AsyncClient(verify=verify, trust_env=False, timeout=httpx.Timeout(None, connect=10.0))
        self._endpoint = endpoint.rstrip("/")

    async def events(self, path: str, body: dict[str, Any], key: str) -> AsyncIterator[dict[str, Any]]:
        """The events of one turn. Raises TurnError if the gateway refuses it or cannot be reached."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with self._http.stream("POST", self._endpoint + path, json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    raise TurnError(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        yield json.loads(line[6:])
        except (httpx.HTTPError, ValueError) as exc:
            words = {"message": f"the turn was cut: {str(exc) or type(exc).__name__}", "type": "server_error"}
            raise TurnError(
                502, json.dumps({"error": {**words, "param": None, "code": "engine_lost"}}).encode()
            ) from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
