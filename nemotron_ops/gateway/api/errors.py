"""Errors of the gateway, in the shape that clients of each API read. Pure.

OpenAI's clients read `error.message`, `error.type`, `error.code`; Anthropic's read `type: error` around theirs.
llama-server answers in OpenAI's shape everywhere, also on Anthropic's paths; the gateway does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nemotron_ops.gateway.api import client_faults, context_overflow
from nemotron_ops.gateway.api.routes import Api

REASONS: dict[int, str] = {
    200: "OK", 204: "No Content", 206: "Partial Content", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    411: "Length Required", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    417: "Expectation Failed", 421: "Misdirected Request", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}  # fmt: skip
CLIENT_GONE = 499  # in logs and metrics, if the client disconnected before there was a status

OPENAI_TYPES: dict[int, str] = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    501: "not_supported_error", 503: "unavailable_error",
}  # fmt: skip
ANTHROPIC_TYPES: dict[int, str] = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Refusal(Exception):
    """A request that is answered with an error. `code` is for programs ("queue_full")."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    allow: str = ""  # the methods that the path takes, for the Allow header

    def __str__(self) -> str:
        return self.message


def error_type(api: Api, status: int) -> str:
    """The error type that clients of `api` expect with `status`."""
    if api is Api.MESSAGES:
        return ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def error_object(api: Api, refusal: Refusal) -> dict[str, Any]:
    """The JSON object of an error, as clients of `api` read it."""
    kind = error_type(api, refusal.status)
    if api is Api.MESSAGES:
        overflow = refusal.code == context_overflow.CODE and refusal.detail
        message = context_overflow.anthropic_words(refusal.detail) if overflow else refusal.message
        return {"type": "error", "error": {"type": kind, "message": message, **refusal.detail}}
    if api is Api.OLLAMA:
        return {"error": refusal.message}
    return {"error": {"message": refusal.message, "type": kind, "code": refusal.code, **refusal.detail}}


def error_body(api: Api, refusal: Refusal) -> bytes:
    """`error_object` as bytes."""
    return msgspec.json.encode(error_object(api, refusal))


def error_event(api: Api, refusal: Refusal) -> bytes:
    """The same error as an event of a stream that has begun."""
    if api is Api.RESPONSES:
        kind = error_type(api, refusal.status)
        value = {"type": "error", "code": refusal.code or kind, "message": refusal.message, "param": None}
        return b"event: error\ndata: " + msgspec.json.encode(value) + b"\n\n"
    data = error_body(api, refusal)
    if api is Api.MESSAGES:
        return b"event: error\ndata: " + data + b"\n\n"
    if api is Api.OLLAMA:
        return data + b"\n"
    return b"data: " + data + b"\n\n"


def overflow(prompt_tokens: int, ctx_tokens: int) -> Refusal:
    """The Refusal of a prompt that is larger than the context."""
    return Refusal(
        status=400, code="context_length_exceeded", message=context_overflow.words(prompt_tokens, ctx_tokens),
        detail=context_overflow.detail(prompt_tokens, ctx_tokens),
    )  # fmt: skip


def engine_error(status: int, body: bytes) -> Refusal:
    """The Refusal that passes on llama-server's error."""
    if (found := context_overflow.overflow_in(body)) is not None:
        return overflow(*found)
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        message = body.decode(errors="replace")[:500] or f"the engine answered {status}"
    status = client_faults.status_of(status, body)
    return Refusal(status=status, code="engine_error" if status >= 500 else "engine_refused", message=message)


def upstream_error(api: Api, status: int, body: bytes) -> bytes:
    """An error body of llama-server, in the shape that clients of `api` read: their `code` is a text, not a number."""
    return error_body(api, engine_error(status, body))
