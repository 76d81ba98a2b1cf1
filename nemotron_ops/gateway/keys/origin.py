"""Checks the Host and Origin of a request, and answers CORS: which web pages may use the gateway. Pure."""

from __future__ import annotations

from functools import lru_cache

from nemotron_ops.gateway.api import header_bytes
from nemotron_ops.gateway.api.errors import Refusal

ASKED_HEADERS_BYTES = 2048
ALLOW_HEADERS = b"Authorization, Content-Type, X-Api-Key, Anthropic-Version"
EXPOSE_HEADERS = b"X-Request-Id, X-Instance, X-Queue-Ms, X-Lost-In-Thought, Retry-After"


@lru_cache(maxsize=64)
def host_name(value: str) -> str:
    """The host of a Host header, without its port, in lower case."""
    text = value.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def check_host(headers: dict[bytes, bytes], allowed: frozenset[str] | None) -> None:
    """Raises Refusal if the Host header is not `allowed`: a web page that rebinds its DNS to us sends its own name.

    `allowed` None allows any host, for gateways that require a key.
    """
    if allowed is None:
        return
    host = headers.get(b"host")
    if host is None or host_name(host.decode("latin-1")) in allowed:
        return
    raise Refusal(
        status=403, code="host_not_allowed",
        message="this Host is not allowed; allow it with --allowed-host, or configure keys",
    )  # fmt: skip


def check_origin(headers: dict[bytes, bytes], allowed: frozenset[str]) -> None:
    """Raises Refusal if a web page of another origin made a browser send the request."""
    origin = headers.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1").strip().lower()
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    if text in allowed or "*" in allowed or text.partition("://")[2] == host:
        return
    raise Refusal(status=403, code="origin_not_allowed", message="requests from this web origin are not allowed")


def cors_headers(headers: dict[bytes, bytes], allowed: frozenset[str]) -> list[bytes]:
    """The header lines that let a page of an allowed origin read the answer; none if its origin is not allowed."""
    origin = headers.get(b"origin")
    if origin is None or not (origin.decode("latin-1").strip().lower() in allowed or "*" in allowed):
        return []
    expose = b"Access-Control-Expose-Headers: " + EXPOSE_HEADERS
    return [b"Access-Control-Allow-Origin: " + origin, expose, b"Vary: Origin"]


def preflight_headers(headers: dict[bytes, bytes], allowed: frozenset[str]) -> list[bytes]:
    """The header lines that answer a browser's preflight request; none if its origin is not allowed."""
    found = cors_headers(headers, allowed)
    if not found:
        return []
    return [
        *found,
        b"Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS",
        b"Access-Control-Allow-Headers: " + _allow_headers(headers),
        b"Access-Control-Max-Age: 600",
    ]


def _allow_headers(headers: dict[bytes, bytes]) -> bytes:
    """The headers that a page of an allowed origin may send: all that it asks for, if they are well-formed.

    OpenAI's and Anthropic's clients send a dozen of their own (`x-stainless-*`); none reaches llama-server.
    """
    wanted = headers.get(b"access-control-request-headers", b"")
    names = [name.strip() for name in wanted.split(b",")]
    well_formed = all(name and header_bytes.NAME.issuperset(name) for name in names)
    return b", ".join(names) if well_formed and len(wanted) <= ASKED_HEADERS_BYTES else ALLOW_HEADERS
