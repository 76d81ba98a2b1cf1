"""A client's request as llama-server gets it. Pure.

Of a body only the top level is read: names and the raw bytes of their values. A body in which nothing has to
change goes upstream as it came; otherwise the changed fields are replaced and all others keep their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nemotron_ops.gateway.api.catalog import Directory, Named
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Route
from nemotron_ops.gateway.queue.reservation import answers
from nemotron_ops.gateway.request import fields as field_rules
from nemotron_ops.gateway.request.media import check_media
from nemotron_ops.gateway.streams.fold import Fold, fold_for
from nemotron_ops.gateway.streams.sse import NOT_JSON

Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TRUE = b"true"
_NULL = field_rules.NULL
NUMBER_BYTES = 32  # Python refuses to read very long ones
SMALL_BYTES = 16384
SMALL_LIMITS = frozenset({b"0", b"1", b"2", b"3", b"4"})  # tokens


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is ready to go upstream. `fields` are those of the body that is sent."""

    named: Named
    body: bytes
    stream: bool
    fields: Fields
    limits: Sequence[bytes] = ()  # what `fields` say about how long the answer may be
    fold: Fold | None = None  # a stream is asked for, and folded into one answer
    answers: int = 1  # that are asked for at once


def read_fields(body: bytes) -> Fields:
    """The top level of a JSON object. Raises Refusal if `body` is none."""
    try:
        if not body.isascii():
            body.decode()  # values are taken as they stand: llama-server would answer 500 to what is no UTF-8
        return _decode_fields(body)
    except NOT_JSON as exc:
        why = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise Refusal(
            status=400, code="invalid_json", message=f"cannot read the request: not a JSON object ({why})"
        ) from exc


def prepare(route: Route, body: bytes, directory: Directory, only: tuple[str, ...] = ()) -> Prepared:
    """What goes upstream for `body` of `route`. Raises Refusal for a body that may not.

    `only` are the models that the client may hear of.
    """
    fields = read_fields(body)
    named = directory.by_json.get(bytes(fields.get("model", b"")))
    if named is None:
        named = directory.resolve(text_field(fields, "model"), only)
    check_media(fields, body)
    before = dict(fields)
    allowed = field_rules.allowed(route.api)
    if not fields.keys() <= allowed:
        for name in fields.keys() - allowed - CLIENT_REASONING:
            del fields[name]
    if not field_rules.BOUNDED.isdisjoint(fields):
        bound(fields, named.ctx_tokens or field_rules.LAST_TOKENS_MAX)
    if route.generates:
        map_reasoning(route.api, fields)
        fill(route.api, fields, named.filled_in)
        force(route.api, fields, named.model.fixed)
        cap(route.api, fields, named.model.capped)
    stream = bytes(fields.get("stream", b"")) == _TRUE
    if stream and route.api is Api.NATIVE and "response_fields" in fields:
        keep_stop(fields)
    limits = field_rules.limits(route.api, fields) if route.generates else ()
    fold = None
    if route.generates and not stream and not is_small(limits, body):
        fold = fold_for(route.api, fields)
        if fold is not None:
            ask_for_stream(route.api, fields)
    sent = msgspec.json.encode(fields) if fields != before else body
    count = 1 if route.api is Api.CHAT and "n" not in fields else answers(route.kind, route.api, fields)
    return Prepared(named=named, body=sent, stream=stream, fields=fields, limits=limits, fold=fold, answers=count)


def is_small(limits: Sequence[bytes], body: bytes) -> bool:
    """Whether an answer costs so little that nothing is saved by cancelling it: then it is asked for whole."""
    return len(body) <= SMALL_BYTES and bool(limits) and SMALL_LIMITS.issuperset(limits)


def ask_for_stream(api: Api, fields: Fields) -> None:
    """Make llama-server stream an answer that will be folded."""
    fields["stream"] = msgspec.Raw(_TRUE)
    if api in (Api.CHAT, Api.COMPLETION):
        put(fields, "stream_options", {"include_usage": True})


def text_field(fields: Mapping[str, msgspec.Raw], name: str) -> str:
    """A field that must be text if it is there. Raises Refusal otherwise."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except NOT_JSON as exc:
        message = f"{name}: expected text, found {bytes(raw)[:40].decode(errors='replace')}"
        raise Refusal(status=400, code="invalid_field", message=message) from exc


def value_of(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """The value of a field, None if it is absent or no JSON."""
    raw = fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except NOT_JSON:
        return None


def given(fields: Mapping[str, msgspec.Raw], name: str) -> bool:
    """Whether the client has said something for a field."""
    return name in fields and bytes(fields[name]) != _NULL


def put(fields: Fields, name: str, value: Any) -> None:
    """Set a field to a JSON value."""
    fields[name] = msgspec.Raw(msgspec.json.encode(value))


def fill(api: Api, fields: Fields, values: Mapping[str, Any]) -> None:
    """Give fields that the client left out the values of its profile and recipe."""
    for name, value in values.items():
        if name in ("reasoning", "enable_thinking"):
            if not speaks_of_reasoning(fields):
                set_thinking(api, fields, on=bool(value))
        elif name in ("reasoning_budget_tokens", "thinking_budget_tokens"):
            if not speaks_of_reasoning(fields):
                set_budget(api, fields, int(value))
        elif name == "chat_template_kwargs" and isinstance(value, Mapping):
            add_template_kwargs(api, fields, {**value, **_template_kwargs(fields)})
        else:
            names = field_rules.spellings(api, name)
            if names and not any(given(fields, n) for n in names):
                put(fields, names[0], value)


def force(api: Api, fields: Fields, values: Mapping[str, Any]) -> None:
    """Give fields the values that the recipe fixed, whatever the client said."""
    for name, value in values.items():
        if name in ("reasoning", "enable_thinking"):
            set_thinking(api, fields, on=bool(value))
        elif name in ("reasoning_budget_tokens", "thinking_budget_tokens"):
            set_budget(api, fields, int(value))
        elif names := field_rules.spellings(api, name):
            for spelling in names[1:]:
                fields.pop(spelling, None)
            put(fields, names[0], value)


def cap(api: Api, fields: Fields, limits: Mapping[str, float]) -> None:
    """Lower fields to the recipe's limits. A negative number of tokens means "no limit", so it is lowered too."""
    for name, limit in limits.items():
        names = field_rules.spellings(api, name)
        tokens = field_rules.RENAMED.get(name, name) == "max_tokens"
        if names and tokens and not any(given(fields, n) for n in names):
            put(fields, names[0], limit)
        for spelling in names:
            value = number_of(fields, spelling)
            if isinstance(value, int | float) and (value > limit or (tokens and value < 0)):
                put(fields, spelling, limit)


def number_of(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """The value of a field; a number that is too large to be read is endless."""
    raw = bytes(fields.get(name, _NULL))
    value = value_of(fields, name) if len(raw) <= NUMBER_BYTES or raw[0] not in b"-0123456789" else None
    if value is None and raw != _NULL:
        return float("-inf") if raw[0] == ord("-") else float("inf")
    return value


def bound(fields: Fields, ctx_tokens: int) -> None:
    """Lower what would make llama-server allocate without end. Raises Refusal for more of something than is useful."""
    for name in field_rules.LAST_TOKENS & fields.keys():
        value = number_of(fields, name)
        if isinstance(value, int | float) and not -1 <= value <= ctx_tokens:
            put(fields, name, ctx_tokens if value > 0 else -1)
    for name in field_rules.COUNTS.keys() & fields.keys():
        most = field_rules.COUNTS[name]
        if len(bytes(fields[name])) > field_rules.LISTS_BYTES or _count(number_of(fields, name)) > most:
            raise Refusal(status=400, code="invalid_field", message=f"{name}: at most {most}")


def _count(value: Any) -> float:
    if isinstance(value, int | float):
        return value
    return len(value) if isinstance(value, list | dict) else 0


def keep_stop(fields: Fields) -> None:
    """The end of a stream says `stop`, also to a client that did not ask for it: else it could not be told."""
    wanted = value_of(fields, "response_fields")
    if isinstance(wanted, list) and wanted and "stop" not in wanted:
        put(fields, "response_fields", [*wanted, "stop"])


# What clients of other servers call reasoning on, off and its budget; llama-server does not know these.
CLIENT_REASONING = frozenset({"reasoning", "thinking", "enable_thinking", "thinking_budget", "reasoning_budget"})
_SPEAKS = frozenset({"reasoning_effort", "reasoning_budget_tokens", "thinking_budget_tokens", "thinking"})


def speaks_of_reasoning(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the client decided about thinking itself."""
    return any(given(fields, name) for name in _SPEAKS) or "enable_thinking" in _template_kwargs(fields)


def map_reasoning(api: Api, fields: Fields) -> None:
    """Turn other servers' words for reasoning into llama-server's."""
    if not (CLIENT_REASONING & fields.keys()):
        return
    on, budget = _wishes(fields)
    known = field_rules.allowed(api)
    if "reasoning" not in known and "reasoning_effort" in known and not given(fields, "reasoning_effort"):
        wish = value_of(fields, "reasoning")
        if isinstance(wish, dict) and isinstance(effort := wish.get("effort"), str) and effort != "none":
            put(fields, "reasoning_effort", effort)
    for name in CLIENT_REASONING & fields.keys():
        if name not in known:
            del fields[name]
    if on is not None:
        set_thinking(api, fields, on=on)
    if budget is not None and on is not False:
        set_budget(api, fields, budget)


def _wishes(fields: Mapping[str, msgspec.Raw]) -> tuple[bool | None, int | None]:
    """Thinking on or off, and its budget in tokens, as the client's fields say; None where they don't."""
    on: bool | None = None
    budget: int | None = None
    if isinstance(flag := value_of(fields, "enable_thinking"), bool):
        on = flag
    for name in ("thinking_budget", "reasoning_budget"):
        if isinstance(number := value_of(fields, name), int):
            budget = number
    wish = value_of(fields, "reasoning")
    if isinstance(wish, dict):
        if wish.get("effort") == "none" or wish.get("enabled") is False:
            on = False
        elif wish.get("enabled") is True:
            on = True
        if isinstance(number := wish.get("max_tokens"), int):
            budget = number
    wish = value_of(fields, "thinking")
    if isinstance(wish, dict):
        kind = wish.get("type")
        on = False if kind == "disabled" else True if kind in ("enabled", "adaptive") else on
        if isinstance(number := wish.get("budget_tokens"), int):
            budget = number
    return on, budget


def set_thinking(api: Api, fields: Fields, *, on: bool) -> None:
    """Switch the model's thinking on or off."""
    fields.pop("reasoning_effort", None) if not on else None
    add_template_kwargs(api, fields, {**_template_kwargs(fields), "enable_thinking": on})


def set_budget(api: Api, fields: Fields, tokens: int) -> None:
    """Bound the model's thinking."""
    if api is Api.MESSAGES:
        put(fields, "thinking", {"type": "enabled", "budget_tokens": tokens})
    elif "reasoning_budget_tokens" in field_rules.allowed(api):
        fields.pop("thinking_budget_tokens", None)
        put(fields, "reasoning_budget_tokens", tokens)


def add_template_kwargs(api: Api, fields: Fields, kwargs: Mapping[str, Any]) -> None:
    """Set `chat_template_kwargs` where the API has it."""
    if "chat_template_kwargs" in field_rules.allowed(api):
        put(fields, "chat_template_kwargs", dict(kwargs))


def _template_kwargs(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    value = value_of(fields, "chat_template_kwargs")
    return value if isinstance(value, dict) else {}
