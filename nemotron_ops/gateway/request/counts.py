"""Counts the answers that a request asks for: choices times prompts, or texts to embed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind
from nemotron_ops.gateway.request import fields as field_rules

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
    count, most, name = 1, field_rules.PROMPTS, "prompt"
    if kind is Kind.GENERATE:
        if api in (Api.COMPLETION, Api.NATIVE):
            count = prompts(fields.get(name), most)
        if "n" in fields:
            count *= choices(fields)
    elif kind is Kind.POOL:
        most = field_rules.INPUTS
        name = next((name for name in ("input", "content", "documents", "texts") if name in fields), "input")
        count = prompts(fields.get(name), most)
    if count > most:
        raise Refusal(status=400, code="invalid_field", message=f"{name}: at most {most} at once")
    return count
