"""Bounds the fields of a request that llama-server allocates memory or computes for. Pure.

Called only for requests that have such a field. A large field that was accepted before is not measured again: tools
and schemas are the same in all requests of a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal, overflow
from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.grammar import check_grammar
from nemotron_ops.gateway.request.json_fields import NULL, Fields, number_of, put, value_of
from nemotron_ops.gateway.request.limits import COUNTS, LAST_TOKENS, LISTS_BYTES, Limit, exceeded
from nemotron_ops.gateway.request.schemas import check_depth, check_schema, check_tools

RESERVED_KWARGS = frozenset({"messages", "tools"})  # llama-server renders the prompt with them, and fails
STOPS = frozenset({"stop", "stop_sequences"})
KEPT_VERDICTS = 4096
BYTES_A_TOKEN = 4  # of English text, about: such a prompt is refused before its tokens are counted
_accepted: set[tuple[str, int, int]] = set()  # name, size and hash of fields that were measured


def bound(fields: Fields, ctx_tokens: int) -> None:
    """Lower fields to their bounds. Raises Refusal if one exceeds a bound that cannot be lowered."""
    for name in LAST_TOKENS & fields.keys():
        value = number_of(fields, name)
        if isinstance(value, int | float) and not -1 <= value <= ctx_tokens:
            put(fields, name, ctx_tokens if value > 0 else -1)
    for name in COUNTS.keys() & fields.keys():
        most = COUNTS[name]
        if len(bytes(fields[name])) > LISTS_BYTES or _count(number_of(fields, name)) > most:
            raise Refusal(status=400, code="limit_exceeded", message=f"{name}: at most {most}")
        if name in STOPS:
            _drop_empty(fields, name)
    if "samplers" in fields:
        _check_samplers(value_of(fields, "samplers"))
    for name in MEASURES.keys() & fields.keys():
        if (raw := bytes(fields[name])) != NULL:
            _measure(name, raw)
    if "stream_options" in fields:
        _check_stream_options(fields)


def _count(value: Any) -> float:
    if isinstance(value, int | float):
        return value
    return len(value) if isinstance(value, list | dict) else 0


def _drop_empty(fields: Fields, name: str) -> None:
    """Leave out empty stop texts, which llama-server finds in each answer. Raises Refusal for what is no text."""
    value = value_of(fields, name)
    given = [value] if isinstance(value, str) else value
    if given is None:
        return
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Refusal(status=400, code="invalid_field", message=f"{name}: expected a text or a list of texts")
    if "" in given:
        put(fields, name, [text for text in given if text])


def _check_samplers(samplers: Any) -> None:
    """Raises Refusal if a sampler comes twice. llama-server takes names in a list, or a text with a letter for each."""
    if not isinstance(samplers, list | str):
        return
    if len(samplers) > limits.SAMPLERS.most:
        raise exceeded(limits.SAMPLERS)
    plain = [item.lower().replace("-", "_") if isinstance(samplers, list) else item for item in map(str, samplers)]
    if len(set(plain)) < len(plain):
        raise Refusal(status=400, code="limit_exceeded", message="samplers: at most once each")


def _check_stream_options(fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises Refusal if `stream_options` has a wrong type."""
    value = value_of(fields, "stream_options")
    usage = value.get("include_usage") if isinstance(value, dict) else None
    if value is not None and (not isinstance(value, dict) or not isinstance(usage, bool | None)):
        message = 'stream_options: expected an object such as {"include_usage": true}'
        raise Refusal(status=400, code="invalid_field", message=message)


def _measure(name: str, raw: bytes) -> None:
    """Raises Refusal if a field exceeds a limit of its kind."""
    limit, check = MEASURES[name]
    if len(raw) > limit.most:
        raise exceeded(limit, name)
    verdict = (name, len(raw), hash(raw))
    if verdict in _accepted:
        return
    try:
        check(msgspec.json.decode(raw), name)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise Refusal(status=400, code="invalid_json", message=f"cannot read {name}: {exc}") from exc
    if len(_accepted) >= KEPT_VERDICTS:
        _accepted.clear()
    _accepted.add(verdict)


def _grammar(value: Any, name: str) -> None:
    if isinstance(value, str):
        check_grammar(value, field=name)


def _tools(value: Any, name: str) -> None:
    check_tools(value)


def _kwargs(value: Any, name: str) -> None:
    """The template's arguments: an object, without the names that llama-server sets from the request itself."""
    if not isinstance(value, dict):
        raise Refusal(status=400, code="invalid_field", message=f"{name}: expected an object")
    if taken := sorted(value.keys() & RESERVED_KWARGS):
        message = f"{name}: {', '.join(taken)} cannot be set here; set the request's own field"
        raise Refusal(status=400, code="invalid_field", message=message)
    check_depth(value, limits.KWARGS_DEPTH, name)


def _format(value: Any, name: str) -> None:
    """A `response_format`, or the `text` of a response with its `format`: the schema is one or two levels down."""
    check_depth(value, limits.SCHEMA_DEPTH._replace(most=limits.SCHEMA_DEPTH.most + 3), name)
    for place in (value, *(value.values() if isinstance(value, dict) else ())):
        if isinstance(place, dict) and isinstance(place.get("schema"), dict):
            check_schema(place["schema"], name)


MEASURES: dict[str, tuple[Limit, Callable[[Any, str], None]]] = {
    "grammar": (limits.GRAMMAR_BYTES._replace(most=2 * limits.GRAMMAR_BYTES.most), _grammar),  # as JSON
    "json_schema": (limits.SCHEMA_BYTES, check_schema),
    "response_format": (limits.SCHEMA_BYTES, _format),
    "text": (limits.SCHEMA_BYTES, _format),
    "tools": (limits.TOOLS_BYTES, _tools),
    "chat_template_kwargs": (limits.KWARGS_BYTES, _kwargs),
}
BOUNDED = LAST_TOKENS | COUNTS.keys() | MEASURES.keys() | {"stream_options", "tool_choice"}


# whole requests


def check_size(text_bytes: int, *, ctx_tokens: int, prompts: int) -> None:
    """Raises Refusal if a request has more text than fits any context; media do not count."""
    one = ctx_tokens * limits.CONTEXT_BYTES.most
    if ctx_tokens and text_bytes > max(one, min(prompts * one, limits.LIST_BYTES.most)):
        raise overflow(text_bytes // BYTES_A_TOKEN, ctx_tokens)


def check_messages(fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises Refusal if a request has too many messages."""
    for name in ("messages", "input"):
        text = bytes(fields.get(name, b""))
        if text[:1] == b"[" and text.count(b"{") > limits.MESSAGES.most:
            try:
                count = len(msgspec.json.decode(text, type=list[msgspec.Raw]))
            except msgspec.DecodeError:
                continue
            if count > limits.MESSAGES.most:
                raise exceeded(limits.MESSAGES, name)
