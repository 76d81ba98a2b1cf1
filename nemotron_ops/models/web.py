"""Requests to a model hub, with the rules for redirects. httpx, DNS.

A hub redirects large files to its storage on another host. Each redirect is checked: the token is sent to the endpoint
only, https does not fall back to http, and private addresses are refused, so that a hub cannot reach into the local
network. Exceptions are the configured endpoint and the hosts in `NEMOTRON_OPS_HUB_HOSTS` (host or host:port, separated
by commas).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote
from urllib.request import getproxies

import httpx

from nemotron_ops.errors import ModelError
from nemotron_ops.hub_names import HUB
from nemotron_ops.models.refusals import Refusal, Stalled, refused

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a transfer waits and how often it tries again. `tries` counts failures in a row without a new byte."""

    connect_s: float = 10.0
    stall_s: float = 30.0
    tries: int = 6
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0


class Web:
    """A client for one hub. `with Web(...) as web:` closes its connections."""

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        token: str = "",
        patience: Patience | None = None,
        resolve: Callable[[str], set[str]] | None = None,
    ) -> None:
        self.endpoint = endpoint_of(env)
        self.patience = patience or Patience()
        self._token, self._resolve = token, resolve or addresses
        self._token_answered = False  # the hub has answered a request with it
        self._origin = httpx.URL(self.endpoint)
        self._allowed = {h.strip().lower() for h in env.get("NEMOTRON_OPS_HUB_HOSTS", "").split(",") if h.strip()}
        self._proxied = not is_private(self._origin.host)  # a proxy cannot reach a private network
        self._client = httpx.Client(
            timeout=httpx.Timeout(self.patience.stall_s, connect=self.patience.connect_s),
            follow_redirects=False,
            trust_env=self._proxied,
            limits=httpx.Limits(max_connections=None),
            headers={"user-agent": "nemotron-ops", "accept-encoding": "identity"},
        )

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def file_url(self, repo: str, commit: str, name: str) -> str:
        """Where a file of a repository is."""
        return f"{self.endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(name)}"

    @contextmanager
    def get(self, url: str, *, start: int = 0, end: int | None = None) -> Iterator[httpx.Response]:
        """The response for bytes `start` up to and without `end` (None: to the end); its body is not yet read.

        Raises Stalled for passing failures (network, 429, 5xx), ModelError for lasting ones.
        """
        headers = {} if start == 0 and end is None else {"range": f"bytes={start}-{'' if end is None else end - 1}"}
        response = self._answer(url, headers)
        try:
            check_status(response, url, with_token=bool(self._token))
            yield response
        except httpx.HTTPError as exc:
            raise Stalled(f"cannot read {url}: {_cause(exc)}") from exc
        finally:
            response.close()

    def size_and_tag(self, url: str) -> tuple[int | None, str]:
        """A file's size and etag, without its bytes; None and "" where the server does not tell them.

        Raises as `get` does.
        """
        seen: dict[str, str] = {}
        response = self._answer(url, {}, "HEAD", seen)
        response.close()
        check_status(response, url, with_token=bool(self._token))
        size = seen.get("x-linked-size", seen.get("content-length", ""))
        tag = seen.get("x-linked-etag", seen.get("etag", "")).removeprefix("W/").strip('"')
        return (int(size) if size.isascii() and size.isdigit() else None), tag

    def _answer(
        self, url: str, headers: Mapping[str, str], method: str = "GET", seen: dict[str, str] | None = None
    ) -> httpx.Response:
        """The answer after all redirects; where the hub refuses the token, once more without it. Raises Stalled."""
        try:
            response = self._follow(httpx.URL(url), headers, method, seen)
            if self._token and response.status_code in (401, 403) and not self._token_answered:
                again = self._follow(httpx.URL(url), headers, method, seen, bare=True)
                if again.status_code in (200, 206):
                    self._token = ""
                    response.close()
                    return again
                again.close()
            self._token_answered = True
        except httpx.InvalidURL as exc:
            raise ModelError(f"cannot read {url}: it is no URL: {exc}") from exc
        except httpx.HTTPError as exc:
            raise Stalled(f"cannot reach {url}: {_cause(exc)}", hint="check the network, or HF_ENDPOINT") from exc
        return response

    def _follow(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        method: str,
        seen: dict[str, str] | None = None,
        *,
        bare: bool = False,
    ) -> httpx.Response:
        """The answer after all redirects; `seen` collects the headers on the way, without lengths of redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            own = dict(headers)
            if self._token and not bare and _origin(url) == _origin(self._origin):
                own["authorization"] = f"Bearer {self._token}"
            response = self._client.send(self._client.build_request(method, url, headers=own), stream=True)
            self._check_peer(url, response)
            final = response.status_code not in REDIRECTS
            if seen is not None:
                seen.update({k: v for k, v in response.headers.items() if final or k.startswith("x-linked-")})
            if final:
                return response
            location = response.headers.get("location", "")
            response.close()
            try:
                target = url.join(location)
            except httpx.InvalidURL as exc:
                raise ModelError(f"cannot follow the redirect from {url.host}: its target is no URL") from exc
            self._check_redirect(url, target)
            url = target
        raise ModelError(f"cannot read {url}: more than {MAX_REDIRECTS} redirects")

    def _check_redirect(self, here: httpx.URL, target: httpx.URL) -> None:
        """Raise ModelError unless it is safe to go from `here` to `target`."""
        shown = f"{target.scheme}://{target.netloc.decode()}"
        if target.scheme not in ("http", "https") or (here.scheme == "https" and target.scheme == "http"):
            raise ModelError(f"cannot follow the redirect from {here.host} to {shown}: it is not https")
        if not self._is_ours(target) and any_private(self._resolve(target.host)):
            raise _private(here, target)

    def _check_peer(self, url: httpx.URL, response: httpx.Response) -> None:
        """Raise ModelError if the connection reached a private address: a name may resolve differently each time."""
        stream = response.extensions.get("network_stream")
        if self._is_ours(url) or stream is None or (self._proxied and getproxies()):
            return
        peer = stream.get_extra_info("server_addr")
        if peer and any_private({str(peer[0])}):
            response.close()
            raise _private(url, url)

    def _is_ours(self, url: httpx.URL) -> bool:
        """Whether a URL is on the endpoint, or on a host that the user allowed."""
        named = {url.host.lower(), url.netloc.decode().lower()}
        return _origin(url) == _origin(self._origin) or bool(named & self._allowed)


def endpoint_of(env: Mapping[str, str]) -> str:
    """The hub in use. Raises ModelError if HF_ENDPOINT is no URL."""
    endpoint = env.get("HF_ENDPOINT", "").rstrip("/") or HUB
    if not endpoint.startswith(("http://", "https://")):
        shown = endpoint.rpartition("@")[2]  # without a password
        raise ModelError(f"cannot use HF_ENDPOINT={shown}: it does not start with https://")
    return endpoint


def check_status(response: httpx.Response, url: str, *, with_token: bool = False) -> None:
    """Raise unless the response carries the file: Stalled where a retry may help, else ModelError."""
    if response.status_code not in (200, 206):
        raise refused(
            Refusal(status=response.status_code, headers=response.headers, what=url, with_token=with_token),
            datetime.now(UTC),
        )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)


def _private(here: httpx.URL, target: httpx.URL) -> ModelError:
    shown = f"{target.scheme}://{target.netloc.decode()}"
    return ModelError(
        f"cannot follow the redirect from {here.host} to {shown}: it is a private address",
        hint=f"if that is your own storage, set NEMOTRON_OPS_HUB_HOSTS={target.netloc.decode()}",
    )


def is_private(host: str) -> bool:
    """Whether a host is, or resolves to, an address that is not on the public internet. Unknown hosts are not."""
    return any_private(addresses(host))


def any_private(found: set[str]) -> bool:
    """Whether one of these addresses is not on the public internet."""
    return any(not ipaddress.ip_address(a.partition("%")[0]).is_global for a in found)


def addresses(host: str) -> set[str]:
    """The addresses of a host now; none if it does not resolve."""
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _cause(exc: httpx.HTTPError) -> str:
    """An httpx error in words; its timeouts have no text of their own."""
    if isinstance(exc, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(exc, httpx.TimeoutException):
        return "no data before the timeout"
    return str(exc) or type(exc).__name__
