"""Server-sent events as they pass by: where one ends, when the answer is complete, what it cost. Pure.

A stream is looked at in blobs of whole events, as bytes. Inside JSON, quotes and line ends are escaped, so that a
marker such as `"stop":true` or a line `event: message_stop` cannot come from generated text. What is passed often is
searched by `find`: `in` first tries to read what it looks for as a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api

# What reading JSON raises; llama-server's own reader refuses all of these too.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
KEEP_ALIVE = b":\n\n"  # a comment: clients ignore it, connections stay open
DONE = b"data: [DONE]\n\n"
MODEL = b'"model":"'  # how llama-server begins to say its name
LAST_EVENT = {  # says nothing but that this was all
    Api.CHAT: DONE,
    Api.COMPLETION: DONE,
    Api.MESSAGES: b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}
# How events begin that are one token more and nothing else: neither an end, nor an error, nor a usage of their own.
PLAIN = (
    b'data: {"choices":[{"finish_reason":null,',
    b"event: content_block_delta\n",
    b"event: response.output_text.delta\n",
    b"event: response.reasoning_text.delta\n",
)
RESPONSE_ENDS = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer. `cached` ones are part of `prompt`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


def whole_events(data: bytes) -> int:
    """How many bytes of `data` are whole events."""
    end = data.rfind(b"\n\n")
    return 0 if end < 0 else end + 2


def is_complete(api: Api, blob: bytes) -> bool:
    """Whether `blob`, the latest events, holds the one that says: this was all."""
    match api:
        case Api.CHAT | Api.COMPLETION:
            return blob.endswith(DONE)
        case Api.MESSAGES:
            return b"event: message_stop\n" in blob
        case Api.RESPONSES:
            return any(mark in blob for mark in RESPONSE_ENDS)
        case Api.NATIVE:
            return b'"stop":true' in blob
        case Api.OTHER:
            return b'"type":"transcript.text.done"' in blob or blob.endswith(DONE)


def is_last(api: Api, blob: bytes) -> bool:
    """Whether nothing can follow `blob`. Where that is not sure, the end of the connection tells."""
    mark = LAST_EVENT.get(api)
    return mark is not None and blob.endswith(mark)


CONTEXT_FULL = b"Context size has been exceeded."  # llama-server to all requests whose slots share it


def is_context_full(blob: bytes) -> bool:
    """Whether llama-server ends a stream in `blob` because the context that slots share is full."""
    return blob.find(CONTEXT_FULL) >= 0 and is_error(blob)


def is_error(blob: bytes) -> bool:
    """Whether `blob` holds an error event of llama-server."""
    return blob.find(b'data: {"error":') >= 0 or blob.find(b"event: error\n") >= 0


def count_events(blob: bytes) -> int:
    """Data events in `blob`: about as many as tokens."""
    return blob.count(b"data: ")


def events(blob: bytes) -> Iterator[Any]:
    """The JSON values of the data events in `blob`; what is no JSON is left out."""
    for event in blob.split(b"\n\n"):
        if event.startswith(b"data: {") and b"\n" not in event:  # nearly all
            data = event[6:]
        else:
            data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not data or data == b"[DONE]":
            continue
        try:
            yield msgspec.json.decode(data)
        except NOT_JSON:
            continue


def event(value: dict[str, Any]) -> bytes:
    """A value as an event, as its API writes it: with a name if it has a type."""
    name = b"event: " + value["type"].encode() + b"\n" if "type" in value else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def split_error(blob: bytes) -> tuple[bytes, dict[str, Any]]:
    """What comes before llama-server's error event in `blob`, and what that says (`code`, `message`, `type`)."""
    begin = 0
    for part in blob.split(b"\n\n"):
        if is_error(part):
            value = next(events(part), None)
            inner = value.get("error", value) if isinstance(value, dict) else None
            return blob[:begin], inner if isinstance(inner, dict) else {}
        begin += len(part) + 2
    return blob, {}


def has_usage(blob: bytes) -> bool:
    """Whether it is worth looking for a usage in `blob`."""
    return blob.find(b'"timings":{') >= 0 or blob.find(b'"usage":{') >= 0


def usage_in(blob: bytes, before: Usage | None = None) -> Usage | None:
    """The usage that the events of `blob` speak of, added to what earlier ones said."""
    for value in events(_speaking_of_usage(blob)):
        found = usage_of(value)
        if found is None:
            continue
        before = before or Usage()
        before = Usage(  # Anthropic says the prompt's tokens first and the answer's last
            prompt_tokens=found.prompt_tokens or before.prompt_tokens,
            completion_tokens=found.completion_tokens or before.completion_tokens,
            cached_tokens=found.cached_tokens or before.cached_tokens,
        )
    return before


def together(usages: Iterable[Usage]) -> Usage:
    """The usage of several answers."""
    found = list(usages)
    return Usage(
        prompt_tokens=sum(u.prompt_tokens for u in found),
        completion_tokens=sum(u.completion_tokens for u in found),
        cached_tokens=sum(u.cached_tokens for u in found),
    )


class Tally:
    """The usage of a stream of several answers: each says its own, those of a chat in events of their own."""

    def __init__(self) -> None:
        self._answers: dict[Any, Usage] = {}
        self._apart: list[Usage] = []

    def take(self, blob: bytes) -> Usage | None:
        """The usage of all, after some more events."""
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


def _speaking_of_usage(blob: bytes) -> bytes:
    """The part of `blob` from the first event with a usage on."""
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
    """llama-server's own."""

    predicted_n: int | None = None
    prompt_n: int = 0
    cache_n: int = 0


class _Inner(msgspec.Struct):
    usage: _Usage | None = None


class _Speaker(msgspec.Struct):
    """What says a usage: an event, or a whole answer. Of all else in it nothing is built."""

    usage: _Usage | None = None
    timings: _Timings | None = None
    response: _Inner | str | None = None
    message: _Inner | str | None = None


_decode_speakers = msgspec.json.Decoder(_Speaker | list[_Speaker]).decode


def usage_of(value: Any) -> Usage | None:
    """The usage in one event or whole answer of any API, or None."""
    try:
        return _usage_of(msgspec.convert(value, _Speaker))
    except msgspec.ValidationError:
        return None


def _usage_of(speaker: _Speaker) -> Usage | None:
    usage, timings = speaker.usage, speaker.timings
    for inner in (speaker.response, speaker.message):
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
    if usage.cache_read_input_tokens is not None:  # Anthropic counts the cached ones apart
        prompt += cached
    completion = usage.completion_tokens or usage.output_tokens or 0
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def usage_of_body(body: bytes) -> Usage | None:
    """The usage in a whole answer, if there is one."""
    if not has_usage(body):
        return None
    try:
        said = _decode_speakers(body)
    except NOT_JSON:
        return None
    if isinstance(said, list):  # of several prompts, by llama-server's own completion
        return together(filter(None, map(_usage_of, said)))
    return _usage_of(said)


def answer_id(blob: bytes) -> str:
    """The id of a chat whose first events are in `blob`."""
    start = blob.find(b'"id":"') + 6
    return blob[start : blob.find(b'"', start)].decode(errors="replace") if start >= 6 else ""


def name_in(blob: bytes) -> bytes:
    """Where llama-server says its name in `blob`, as `"model":"name"`; nothing if it does not."""
    start = blob.find(MODEL)
    return blob[start : blob.find(b'"', start + len(MODEL)) + 1] if start >= 0 else b""


def named(name: str) -> bytes:
    """How llama-server would say that it is called `name`."""
    return b'"model":' + msgspec.json.encode(name)
