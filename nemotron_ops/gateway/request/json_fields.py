"""Reads and writes the top level of a JSON body: field names, and the raw bytes of their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.limits import BODY_KEYS, exceeded
from nemotron_ops.gateway.streams.sse import NOT_JSON

Fields = dict[str, msgspec.Raw]
TRUE = b"true"
FALSE = b"false"
NULL = b"null"  # as good as absent, for llama-server too
MOST_KEYS = BODY_KEYS.most
NUMBER_BYTES = 32  # Python refuses to read very long numbers
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_fields(body: bytes) -> Fields:
    """The top level of a JSON object. Raises Refusal if `body` is not one."""
    try:
        if not body.isascii():
            body.decode()  # values are copied unread, and llama-server answers 500 to invalid UTF-8
        fields = _decode_fields(body)
    except NOT_JSON as exc:
        why = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise Refusal(
            status=400, code="invalid_json", message=f"cannot read the request: not a JSON object ({why})"
        ) from exc
    if len(fields) > MOST_KEYS:
        raise exceeded(BODY_KEYS)
    return fields


def text_field(fields: Mapping[str, msgspec.Raw], name: str) -> str:
    """A text field, empty if absent or null. Raises Refusal if it is not text."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == NULL:
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except NOT_JSON as exc:
        message = f"{name}: expected text, found {bytes(raw)[:40].decode(errors='replace')}"
        raise Refusal(status=400, code="invalid_field", message=message) from exc


def value_of(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """The value of a field, None if it is absent or not JSON."""
    raw = fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except NOT_JSON:
        return None


def number_of(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """The value of a field; numbers with too many digits are infinite."""
    raw = bytes(fields.get(name, NULL))
    value = value_of(fields, name) if len(raw) <= NUMBER_BYTES or raw[0] not in b"-0123456789" else None
    if value is None and raw != NULL:
        return float("-inf") if raw[0] == ord("-") else float("inf")
    return value


def given(fields: Mapping[str, msgspec.Raw], name: str) -> bool:
    """Whether the client has set a field to anything but null."""
    return name in fields and bytes(fields[name]) != NULL


def put(fields: Fields, name: str, value: Any) -> None:
    """Set a field to a JSON value."""
    fields[name] = msgspec.Raw(msgspec.json.encode(value))
