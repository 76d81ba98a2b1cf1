"""HTTP to one llama-server, over its unix socket or a base URL. httpx.

Proxies from the environment are never used (`trust_env=False`): a probe of the loopback through a proxy fails and
costs a healthy engine. Connections are not kept: llama-server closes them after streams although it announces
keep-alive, and a probe should also prove that new connections are accepted.
"""

from __future__ import annotations

import socket as socketlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from nemotron_ops.engine.health import Health, health_of, parse_metrics
from nemotron_ops.errors import EngineError

SLOT_FILE_S = 60.0  # llama-server waits while the slot is busy
LIMITS = httpx.Limits(max_keepalive_connections=0)


class Client:
    """A synchronous client. Use as a context manager, or `close()` it."""

    def __init__(
        self, socket: Path | None = None, base_url: str | None = None, api_key: str = "", timeout_s: float = 5.0
    ) -> None:
        self.socket, self.api_key = socket, api_key
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket) if socket else None, limits=LIMITS, verify=_is_tls(base_url)),
            base_url=base_url or "http://llama-server", headers=_auth(api_key), timeout=timeout_s, trust_env=False,
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Health:
        """Never raises: a server that cannot be reached is `unreachable`."""
        if self.socket is not None and not _listening(self.socket):
            return Health.UNREACHABLE
        try:
            return health_of(self._http.get("/health").status_code)
        except httpx.HTTPError:
            return Health.UNREACHABLE

    def metrics(self) -> dict[str, float]:
        """Answered through the task queue, which proves more than `/health`. Raises EngineError."""
        return parse_metrics(self._get("/metrics").text)

    def slots(self) -> list[dict[str, Any]]:
        return list(self._get("/slots").json())

    def props(self) -> dict[str, Any]:
        return dict(self._get("/props").json())

    def chat(
        self, messages: Sequence[dict[str, Any]], *, timeout_s: float | None = 300.0, **fields: Any
    ) -> dict[str, Any]:
        """One chat completion, whole. `fields` go into the request body as they are. Raises EngineError."""
        body = {"messages": list(messages), **fields}
        try:
            answer = self._http.post("/v1/chat/completions", json=body, timeout=timeout_s)
        except httpx.HTTPError as exc:
            raise _unreachable("chat", exc) from exc
        return dict(_checked(answer, "chat").json())

    def ask(self, path: str, body: dict[str, Any], *, timeout_s: float | None = 300.0) -> dict[str, Any]:
        """The answer of any route that takes and gives JSON. Raises EngineError."""
        try:
            return dict(_checked(self._http.post(path, json=body, timeout=timeout_s), path).json())
        except httpx.HTTPError as exc:
            raise _unreachable(path, exc) from exc

    def _get(self, path: str) -> httpx.Response:
        try:
            return _checked(self._http.get(path), path)
        except httpx.HTTPError as exc:
            raise _unreachable(path, exc) from exc


class AsyncClient:
    """The supervisor's client: probes, canaries and slot files, each with its own timeout."""

    def __init__(self, socket: Path, api_key: str = "", timeout_s: float = 5.0) -> None:
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket), limits=LIMITS, verify=False),
            base_url="http://llama-server", headers=_auth(api_key), timeout=timeout_s, trust_env=False,
        )  # fmt: skip

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        try:
            return health_of((await self._http.get("/health")).status_code)
        except httpx.HTTPError:
            return Health.UNREACHABLE

    async def metrics(self) -> dict[str, float]:
        return parse_metrics((await self._ask("GET", "/metrics")).text)

    async def slots(self) -> list[dict[str, Any]]:
        return list((await self._ask("GET", "/slots")).json())

    async def props(self) -> dict[str, Any]:
        return dict((await self._ask("GET", "/props")).json())

    async def chat(
        self, messages: Sequence[dict[str, Any]], *, timeout_s: float | None = 300.0, **fields: Any
    ) -> dict[str, Any]:
        body = {"messages": list(messages), **fields}
        return dict((await self._ask("POST", "/v1/chat/completions", json=body, timeout_s=timeout_s)).json())

    async def slot_file(self, action: str, slot: int, filename: str) -> dict[str, Any]:
        """`action` is "save" or "restore"; `filename` is below the server's `--slot-save-path`."""
        body = {"filename": filename}
        path = f"/slots/{slot}?action={action}"
        return dict((await self._ask("POST", path, json=body, timeout_s=SLOT_FILE_S)).json())

    async def _ask(self, method: str, path: str, *, json: Any = None, timeout_s: float | None = -1) -> httpx.Response:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s == -1 else timeout_s
        try:
            return _checked(await self._http.request(method, path, json=json, timeout=timeout), path)
        except httpx.HTTPError as exc:
            raise _unreachable(path, exc) from exc


def _is_tls(base_url: str | None) -> bool:
    """Certificates are loaded only for https: that takes 20 ms and more."""
    return bool(base_url) and str(base_url).startswith("https:")


def _listening(path: Path) -> bool:
    """Whether a server listens at `path`. If none does, httpcore 1.0 leaks its socket."""
    with socketlib.socket(socketlib.AF_UNIX) as attempt:
        try:
            attempt.connect(str(path))
        except OSError:
            return False
    return True


def _auth(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _checked(answer: httpx.Response, what: str) -> httpx.Response:
    if answer.status_code == 200:
        return answer
    raise EngineError(f"cannot ask llama-server for {what}: HTTP {answer.status_code}: {_message(answer)}")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _unreachable(what: str, exc: httpx.HTTPError) -> EngineError:
    return EngineError(f"cannot ask llama-server for {what}: {str(exc) or type(exc).__name__}")
