"""Prepares a client's JSON request for llama-server: allowed fields, defaults, caps. Pure.

Only the top level of a body is read: field names, and the raw bytes of their values. A body in which nothing changes
goes upstream as it came; otherwise the changed fields are replaced and all others keep their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nemotron_ops.gateway.api.adapters import FIELD as ADAPTER
from nemotron_ops.gateway.api.adapters import check_honoured
from nemotron_ops.gateway.api.catalog import Catalog, Match
from nemotron_ops.gateway.api.content_types import REQUEST_JSON
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Route
from nemotron_ops.gateway.request import fields as field_rules
from nemotron_ops.gateway.request.bounds import BOUNDED, bound, check_messages, check_size
from nemotron_ops.gateway.request.counts import answers, check_choices
from nemotron_ops.gateway.request.json_fields import (
    FALSE,
    NULL,
    TRUE,
    Fields,
    given,
    number_of,
    put,
    read_fields,
    text_field,
    value_of,
)
from nemotron_ops.gateway.request.limits import LAST_TOKENS_MAX
from nemotron_ops.gateway.request.media import check_media
from nemotron_ops.gateway.request.reasoning import (
    CLIENT_REASONING,
    add_template_kwargs,
    decides_reasoning,
    map_reasoning,
    set_budget,
    set_thinking,
    template_kwargs,
)
from nemotron_ops.gateway.request.tool_choice import Forced, check_refused, choose
from nemotron_ops.gateway.streams.fold import Fold, fold_for
from nemotron_ops.gateway.toolcalls.history import mended_messages

TIMINGS = "timings"
SMALL_BYTES = 16384
# The field that may be empty; in an infill llama-server puts tokens around all of them.
PROMPT_FIELDS = {
    "/v1/completions": "prompt", "/completion": "prompt", "/completions": "prompt",
    "/v1/chat/completions": "messages",
}  # fmt: skip
CHATS = (Api.CHAT, Api.MESSAGES)
SMALL_LIMITS = frozenset({b"0", b"1", b"2", b"3", b"4"})  # tokens


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is ready to go upstream. `fields` are the top level of `body`."""

    named: Match
    body: bytes
    stream: bool
    fields: Fields
    limits: Sequence[bytes] = ()  # of the answer's length, one for each such field
    fold: Fold | None = None  # set if llama-server streams an answer that the client gets whole
    answers: int = 1  # choices times prompts
    content_type: bytes = REQUEST_JSON
    tools: bool = False  # functions are offered, and may be called
    forced: Forced | None = None  # a tool call that has to come
    hidden: str = ""  # a field of the whole answer that the client has not asked for


def prepare(route: Route, body: bytes, catalog: Catalog, only: tuple[str, ...] = ()) -> Prepared:
    """The request that goes upstream for `body`. Raises Refusal if it may not.

    An error message names no other models than `only`, if given.
    """
    fields = read_fields(body)
    named = catalog.by_json.get(bytes(fields.get("model", b"")))
    if named is None:
        named = catalog.resolve(text_field(fields, "model"), only)
    media_bytes = check_media(fields, body)
    before = dict(fields)
    allowed = field_rules.allowed(route.api)
    if not fields.keys() <= allowed:
        check_refused(route.api, fields)
        for name in fields.keys() - allowed - CLIENT_REASONING:
            del fields[name]
    forced, tools = None, False
    if not BOUNDED.isdisjoint(fields):
        bound(fields, named.ctx_tokens or LAST_TOKENS_MAX)
        if route.generates and ("tools" in fields or "tool_choice" in fields) and route.api in CHATS:
            forced = choose(route.api, fields)
            tools = "tools" in fields
            mend_history(fields)
    if route.generates:
        map_reasoning(route.api, fields)
        fill(route.api, fields, named.filled_in)
        force(route.api, fields, named.model.fixed)
        cap(route.api, fields, named.model.capped)
    elif named.model.adapter and not route.light:
        check_honoured(route.api)
    stream, hidden = "stream" in fields and bytes(fields["stream"]) != FALSE and asks_for_stream(fields), ""
    if route.api is Api.NATIVE and "response_fields" in fields:
        if stream:
            keep_stop(fields)
        else:
            hidden = ask_for_timings(fields)
    limits = field_rules.limits(route.api, fields) if route.generates else ()
    fold = None
    if route.generates and not stream and not is_small(limits, body):
        fold = fold_for(route.api, fields)
        if fold is not None:
            ask_for_stream(route.api, fields)
    sent = msgspec.json.encode(fields) if fields != before else body
    count = 1
    if route.api is not Api.CHAT or "n" in fields:
        if "n" in fields:
            check_choices(fields, PROMPT_FIELDS.get(route.upstream, ""))
        count = answers(route.kind, route.api, fields)
    if len(body) > SMALL_BYTES:
        check_size(len(body) - media_bytes, ctx_tokens=named.ctx_tokens, prompts=count)
        check_messages(fields)
    return Prepared(
        named=named, body=sent, stream=stream, fields=fields, limits=limits, fold=fold, answers=count, hidden=hidden,
        forced=forced, tools=tools,
    )  # fmt: skip


def mend_history(fields: Fields) -> None:
    """Mend arguments that the client sends back: llama-server answers 500 to those that are no object."""
    mended = mended_messages(bytes(fields.get("messages", b"")))
    if mended is not None:
        fields["messages"] = msgspec.Raw(mended)


def asks_for_stream(fields: Fields) -> bool:
    """Whether the client asks for a stream. Raises Refusal if `stream` is neither true nor false."""
    raw = bytes(fields["stream"])
    if raw == TRUE:
        return True
    if raw != NULL and raw != FALSE:
        raise Refusal(status=400, code="invalid_field", message="stream: expected true or false")
    return False


def is_small(limits: Sequence[bytes], body: bytes) -> bool:
    """Whether an answer is too short for cancelling it to save anything; it is then requested whole."""
    return len(body) <= SMALL_BYTES and bool(limits) and SMALL_LIMITS.issuperset(limits)


def ask_for_stream(api: Api, fields: Fields) -> None:
    """Request as a stream an answer that will be folded."""
    fields["stream"] = msgspec.Raw(TRUE)
    if api in (Api.CHAT, Api.COMPLETION):
        put(fields, "stream_options", {"include_usage": True})


def fill(api: Api, fields: Fields, values: Mapping[str, Any]) -> None:
    """Set the fields that the client left out to the values of its profile and recipe."""
    for name, value in values.items():
        if name in ("reasoning", "enable_thinking"):
            if not decides_reasoning(fields):
                set_thinking(api, fields, on=bool(value))
        elif name in ("reasoning_budget_tokens", "thinking_budget_tokens"):
            if not decides_reasoning(fields):
                set_budget(api, fields, int(value))
        elif name == "chattemplate_kwargs" and isinstance(value, Mapping):
            add_template_kwargs(api, fields, {**value, **template_kwargs(fields)})
        else:
            names = field_rules.spellings(api, name)
            if names and not any(given(fields, n) for n in names):
                put(fields, names[0], value)


def force(api: Api, fields: Fields, values: Mapping[str, Any]) -> None:
    """Set the fields that the recipe fixes, overriding the client."""
    for name, value in values.items():
        if name == ADAPTER and isinstance(value, list):
            check_honoured(api)
            put(fields, ADAPTER, value)
        elif name in ("reasoning", "enable_thinking"):
            set_thinking(api, fields, on=bool(value))
        elif name in ("reasoning_budget_tokens", "thinking_budget_tokens"):
            set_budget(api, fields, int(value))
        elif names := field_rules.spellings(api, name):
            for spelling in names[1:]:
                fields.pop(spelling, None)
            put(fields, names[0], value)


def cap(api: Api, fields: Fields, limits: Mapping[str, float]) -> None:
    """Lower fields to the recipe's limits, also a negative number of tokens, which means "no limit"."""
    for name, limit in limits.items():
        names = field_rules.spellings(api, name)
        tokens = field_rules.RENAMED.get(name, name) == "max_tokens"
        if names and tokens and not any(given(fields, n) for n in names):
            put(fields, names[0], limit)
        for spelling in names:
            value = number_of(fields, spelling)
            if isinstance(value, int | float) and (value > limit or (tokens and value < 0)):
                put(fields, spelling, limit)


def keep_stop(fields: Fields) -> None:
    """Keep `stop` in the events of a native stream even if `response_fields` leaves it out: it marks the end."""
    wanted = value_of(fields, "response_fields")
    if isinstance(wanted, list) and wanted and "stop" not in wanted:
        put(fields, "response_fields", [*wanted, "stop"])


def ask_for_timings(fields: Fields) -> str:
    """Ask for `timings`, which state the usage, where `response_fields` leaves it out; returns what was added."""
    wanted = value_of(fields, "response_fields")
    if not isinstance(wanted, list) or not wanted or TIMINGS in wanted:
        return ""
    put(fields, "response_fields", [*wanted, TIMINGS])
    return TIMINGS


def without(body: bytes, name: str) -> bytes:
    """A whole answer, or a list of them, without the field `name`."""
    value = msgspec.json.decode(body, type=dict[str, msgspec.Raw] | list[dict[str, msgspec.Raw]])
    for answer in value if isinstance(value, list) else [value]:
        answer.pop(name, None)
    return msgspec.json.encode(value)
