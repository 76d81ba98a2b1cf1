"""Going on with a stream whose llama-server died. Pure.

What the client has seen is the beginning of an answer. Another llama-server is asked to go on from there:

    PREFILL   thoughts and text so far are given as the beginning of the assistant's message, or of the prompt: the
              model goes on where it was. llama-server's own completion names its tokens: they are given instead of
              text, which a tokenizer may cut otherwise than the model has written it.
    REPLAY    where that would be wrong (a client's own grammar starts at its beginning; the client has begun the
              answer itself), the request is sent again, what comes must begin with what the client has seen, and only
              the rest is passed on.

llama-server refuses to continue a message with tool calls. A call in progress is given as text, as the model's template
writes it (halfcall.py), or what was said before it is given and the call is made again. Made again until it begins as
the client has seen it, it is a draw from just those calls that the model could have made (rejection sampling); what
never begins so ends in an error.

Not continued are streams of several choices, with log probabilities, and what is longer than what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.rewrite import Continuation
from nemotron_ops.gateway.continuation.transcript import Said
from nemotron_ops.gateway.request.fields import SPELLINGS
from nemotron_ops.gateway.streams.fold import UNFOLDABLE
from nemotron_ops.gateway.streams.sse import NOT_JSON

TIMES_AGAIN = 3  # a tool call or replay that comes out differently
Fields = Mapping[str, msgspec.Raw]


def can_continue(api: Api, fields: Fields) -> bool:
    """Whether streams of such a request can be continued at all."""
    if api is Api.OTHER or UNFOLDABLE & fields.keys():
        return False
    if bytes(fields.get("n", b"1")) not in (b"1", b"null"):
        return False
    return api not in (Api.COMPLETION, Api.NATIVE) or bytes(fields.get("prompt", b""))[:1] == b'"'


def continuation(
    api: Api,
    fields: Fields,
    said: Said,
    *,
    again: int = 0,
    closed: bool = False,
    call: str = "",
    tail: str | None = None,
) -> Continuation | None:
    """How to go on after `said`, or None if that cannot be done rightly.

    `again`: how often it came out differently. `closed`: the thoughts are over, although nothing follows. `call` and
    `tail`: the text of a tool call in progress, and what the client has seen behind it.
    """
    if not can_continue(api, fields) or said.finished:
        return None
    changed = dict(fields)
    if again:
        _draw_anew(changed, again)
    if not (said.reasoning or said.content or call) or _starts_anew(api, fields):
        return replay(changed, said)
    given = said.tokens + (said.call_tokens if call else 0)
    _lower_limit(api, changed, given)
    if api in (Api.COMPLETION, Api.NATIVE):
        try:
            prompt = msgspec.json.decode(fields["prompt"], type=str)
        except NOT_JSON:
            return None
        changed["prompt"] = _raw([prompt, *said.token_ids] if said.token_ids else prompt + said.content)
        return Continuation(body=msgspec.json.encode(changed), said=said, prior_tokens=given)
    name = "input" if api is Api.RESPONSES else "messages"
    if not _may_be_answered(turns := _turns(fields, name)):
        return replay(dict(fields), said)
    closed = closed or bool(said.content or said.calls)
    changed[name] = _raw([*turns, *_beginning(api, said, call, closed=closed)])
    if api is Api.MESSAGES:  # here llama-server repeats what it is given (tools/server/server-schema.cpp:327, v0.5.0)
        return Continuation(
            body=msgspec.json.encode(changed), said=said, prior_tokens=given,
            skip_reasoning=said.reasoning, skip_content=said.content, closed=closed,
        )  # fmt: skip
    changed["add_generation_prompt"] = _raw(False)
    changed["continue_final_message"] = _raw("content" if closed else "reasoning_content")
    body = msgspec.json.encode(changed)
    return Continuation(body=body, said=said, prior_tokens=given, closed=closed, tail=tail)


def replay(fields: Fields, said: Said) -> Continuation:
    """The request sent again: what comes must begin with what was said."""
    body = msgspec.json.encode(dict(fields))
    return Continuation(body=body, said=said, skip_reasoning=said.reasoning, skip_content=said.content, anew=True)


def _draw_anew(fields: dict[str, msgspec.Raw], again: int) -> None:
    """The same seed would come out the same."""
    try:
        seed = msgspec.json.decode(fields["seed"], type=int)
    except (KeyError, *NOT_JSON):
        return
    fields["seed"] = _raw(max(0, seed) + again)


def _starts_anew(api: Api, fields: Fields) -> bool:
    """Whether a grammar of the client's would start at its beginning.

    In chats llama-server leads the grammars of `response_format` and of tools through what is given
    (common/sampling.cpp:294, v0.5.0), but no other.
    """
    return "grammar" in fields or (api in (Api.COMPLETION, Api.NATIVE) and "json_schema" in fields)


def _turns(fields: Fields, name: str) -> list[Any]:
    """The conversation, its turns as they came; empty if it is none."""
    raw = fields.get(name, msgspec.Raw(b"[]"))
    try:
        if bytes(raw)[:1] == b'"':  # a response's input may be text
            return [{"role": "user", "content": raw}]
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except NOT_JSON:
        return []


def _may_be_answered(turns: list[Any]) -> bool:
    """Whether the next turn is the assistant's, and not begun by the client."""
    if not turns:
        return False
    try:
        last = turns[-1] if isinstance(turns[-1], dict) else msgspec.json.decode(turns[-1])
    except NOT_JSON:
        return False
    if not isinstance(last, dict):
        return False
    return last.get("role", "assistant") != "assistant" or last.get("type") == "function_call_output"


def _beginning(api: Api, said: Said, call: str, *, closed: bool) -> list[dict[str, Any]]:
    """What was said as the beginning of the answer, as `api` writes it."""
    thoughts, words = said.reasoning, said.content + call
    if closed and thoughts.endswith("\n"):
        thoughts = thoughts[:-1]  # Nemotron's template ends a closed thought with a line end of its own
    match api:
        case Api.MESSAGES:
            blocks = [{"type": "thinking", "thinking": thoughts}] if thoughts else []
            if closed:  # an empty text, too, says that the thoughts are over
                blocks.append({"type": "text", "text": words})
            return [{"role": "assistant", "content": blocks}]
        case Api.RESPONSES:
            text = {"type": "reasoning_text", "text": thoughts}
            items: list[dict[str, Any]] = [{"type": "reasoning", "summary": [], "content": [text]}] if thoughts else []
            if words or not items:
                text = {"type": "output_text", "text": words}
                items.append({"type": "message", "role": "assistant", "content": [text]})
            return items
        case _:
            message = {"role": "assistant", "content": words}
            return [{**message, "reasoning_content": thoughts} if thoughts else message]


def _lower_limit(api: Api, fields: dict[str, msgspec.Raw], used: int) -> None:
    """An answer's limit of tokens counts what was said already."""
    for name in SPELLINGS[api]:
        try:
            limit = msgspec.json.decode(fields[name]) if name in fields else None
        except NOT_JSON:
            continue
        if isinstance(limit, int) and limit > 0:
            fields[name] = _raw(max(1, limit - used))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
