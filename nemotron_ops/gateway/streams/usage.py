"""Reads the usage of an answer, in tokens, from the events or whole answers of all APIs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from nemotron_ops.gateway.streams.sse import NOT_JSON, events


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer; cached ones are part of the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


def has_usage(blob: bytes) -> bool:
    """Whether `blob` may hold a usage."""
    return blob.find(b'"timings":{') >= 0 or blob.find(b'"usage":{') >= 0


def usage_in(blob: bytes, before: Usage | None = None) -> Usage | None:
    """The usage in the events of `blob`, completed by that of earlier events."""
    for value in events(_from_usage_on(blob)):
        found = usage_of(value)
        if found is None:
            continue
        before = before or Usage()
        before = Usage(  # Anthropic sends the prompt's tokens first and the answer's last
            prompt_tokens=found.prompt_tokens or before.prompt_tokens,
            completion_tokens=found.completion_tokens or before.completion_tokens,
            cached_tokens=found.cached_tokens or before.cached_tokens,
        )
    return before


def together(usages: Iterable[Usage]) -> Usage:
    """The sum of several usages."""
    found = list(usages)
    return Usage(
        prompt_tokens=sum(u.prompt_tokens for u in found),
        completion_tokens=sum(u.completion_tokens for u in found),
        cached_tokens=sum(u.cached_tokens for u in found),
    )


class Tally:
    """Sums the usage of a stream of several answers: each sends its own; a chat's are in separate events."""

    def __init__(self) -> None:
        self._answers: dict[Any, Usage] = {}
        self._apart: list[Usage] = []

    def take(self, blob: bytes) -> Usage | None:
        """The usage of all answers, after some more events."""
        for value in events(blob):
            found = usage_of(value)
            if found is None:
                continue
            choices = value.get("choices")
            if choices == []:
                self._apart.append(found)
            else:
                self._answers[choices[0].get("index") if choices else value.get("index")] = found
        if not (self._apart or self._answers):
            return None
        return together(self._apart or self._answers.values())


def _from_usage_on(blob: bytes) -> bytes:
    """The part of `blob` that begins with the first event with a usage."""
    places = [p for p in (blob.find(b'"timings":{'), blob.find(b'"usage":{')) if p >= 0]
    if not places:
        return b""
    before = blob.rfind(b"\n\n", 0, min(places))
    return blob if before < 0 else blob[before + 2 :]


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None  # Anthropic's, and OpenAI's responses
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None  # Anthropic's


class _Timings(msgspec.Struct):
    """llama-server's own numbers."""

    predicted_n: int | None = None
    prompt_n: int = 0
    cache_n: int = 0


class _Inner(msgspec.Struct):
    usage: _Usage | None = None


class _Holder(msgspec.Struct):
    """An event or a whole answer; only the fields that hold a usage are decoded."""

    usage: _Usage | None = None
    timings: _Timings | None = None
    response: _Inner | str | None = None
    message: _Inner | str | None = None


class _Whole(_Holder):
    """A whole answer; its choices are counted."""

    choices: list[msgspec.Raw] | None = None


_decode_holders = msgspec.json.Decoder(_Whole | list[_Whole]).decode


def usage_of(value: Any) -> Usage | None:
    """The usage in one event or whole answer of any API, or None."""
    try:
        return _usage_of(msgspec.convert(value, _Holder))
    except msgspec.ValidationError:
        return None


def _usage_of(holder: _Holder) -> Usage | None:
    usage, timings = holder.usage, holder.timings
    for inner in (holder.response, holder.message):
        if isinstance(inner, _Inner) and inner.usage is not None:
            usage, timings = inner.usage, None
    if timings is not None and timings.predicted_n is not None:
        return Usage(
            prompt_tokens=timings.cache_n + timings.prompt_n, completion_tokens=timings.predicted_n,
            cached_tokens=timings.cache_n,
        )  # fmt: skip
    if usage is None:
        return None
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = (details.cached_tokens if details is not None else 0) or usage.cache_read_input_tokens or 0
    prompt = usage.prompt_tokens or usage.input_tokens or 0
    if usage.cache_read_input_tokens is not None:  # Anthropic counts cached tokens separately
        prompt += cached
    completion = usage.completion_tokens or usage.output_tokens or 0
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def usage_of_body(body: bytes) -> Usage | None:
    """The usage in a whole answer, if there is one."""
    if not has_usage(body):
        return None
    try:
        found = _decode_holders(body)
    except NOT_JSON:
        return None
    if isinstance(found, list):  # llama-server's own completion of several prompts
        return together(filter(None, map(_usage_of, found)))
    usage = _usage_of(found)
    if usage is not None and found.choices and (count := len(found.choices)) > 1:
        return together([usage] * count)  # llama-server states that of the first only
    return usage
