"""Counts the answers that a request asks for: choices times prompts, or texts to embed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind
from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.json_fields import NULL, value_of

MAX_CHOICES = 64
OF_TOKENS = re.compile(rb"\[\s*[-0-9]")
DIGITS = tuple(b"%c" % digit for digit in b"-0123456789")
MAX_DIGITS = 15  # of a number; Python refuses to read very long ones


def choices(fields: Mapping[str, msgspec.Raw]) -> int:
    """The number of choices requested; each takes a slot and a copy of the prompt."""
    raw = fields.get("n")
    if raw is None:
        return 1
    text = bytes(raw)
    return min(MAX_CHOICES, max(1, int(text[:MAX_DIGITS]))) if text.isdigit() else 1


def prompts(raw: msgspec.Raw | None, most: int) -> int:
    """The number of prompts or texts in a field; more than `most` count as `most` + 1.

    A list with a number in it is one prompt, made of tokens (tools/server/server-common.cpp, v0.5.0).
    """
    if raw is None or memoryview(raw)[0] != ord("["):
        return 1
    text = bytes(raw)
    if OF_TOKENS.match(text):
        return 1
    if text.count(b",") > most:  # perhaps commas in texts: decode no more items than needed
        first = msgspec.structs.astuple(msgspec.json.decode(text, type=_beginning_of(most + 1)))
        found: Sequence[msgspec.Raw] = [item for item in first if item is not msgspec.UNSET]
    else:
        found = msgspec.json.decode(text, type=list[msgspec.Raw])
    return 1 if any(bytes(item)[:1] in DIGITS for item in found) else max(1, len(found))


@cache
def _beginning_of(count: int) -> type[msgspec.Struct]:
    """A type that decodes only the first `count` items of a list."""
    items = [(f"i{n}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for n in range(count)]
    return msgspec.defstruct("Beginning", items, array_like=True)


def answers(kind: Kind, api: Api, fields: Mapping[str, msgspec.Raw]) -> int:
    """The number of answers that a request asks for. Raises Refusal if that is more than allowed."""
    count, most, name = 1, limits.PROMPTS, "prompt"
    if kind is Kind.GENERATE:
        if api in (Api.COMPLETION, Api.NATIVE):
            count = prompts(fields.get(name), most)
        if "n" in fields:
            count *= choices(fields)
    elif kind is Kind.POOL:
        most = limits.INPUTS
        name = next((name for name in ("input", "content", "documents", "texts") if name in fields), "input")
        count = prompts(fields.get(name), most)
    if count > most:
        raise Refusal(status=400, code="limit_exceeded", message=f"{name}: at most {most} at once")
    return count


def check_choices(fields: Mapping[str, msgspec.Raw], prompt: str) -> None:
    """Raises Refusal if `n` is no whole number, or asks for choices for a field `prompt` that has an empty prompt.

    llama-server answers an empty prompt at once and lets its other choices wait for ever (send_final_response before
    the children start, tools/server/server-context.cpp:3146, v0.5.0). It takes 4.0 for 4.
    """
    raw = bytes(fields.get("n", NULL))
    if raw == NULL:
        return
    if not raw.removeprefix(b"-").isdigit():
        raise Refusal(status=400, code="invalid_field", message="n: expected a whole number")
    if raw != b"1" and prompt in fields and _has_empty(value_of(fields, prompt)):
        message = f"{prompt}: an empty prompt has only one answer; leave out n, or send a prompt"
        raise Refusal(status=400, code="empty_prompt", message=message)


def _has_empty(value: Any) -> bool:
    """Whether a field with one or several prompts has one without text and tokens."""
    several = isinstance(value, list) and not any(isinstance(item, int | float) for item in value)
    return _is_empty(value) or (several and any(map(_is_empty, value)))


def _is_empty(value: Any) -> bool:
    match value:
        case str():
            return not value
        case list():
            return all(map(_is_empty, value))
        case {"prompt_string": text}:
            return _is_empty(text) and not value.get("multimodal_data")
        case _:
            return False
