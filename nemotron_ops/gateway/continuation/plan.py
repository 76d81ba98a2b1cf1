"""Plans how a stream whose instance was lost continues at another one. Pure.

The client has received the beginning of an answer. Another llama-server is asked for the rest:

    PREFILL   reasoning and content so far are given as the beginning of the assistant's message, or appended to the
              prompt, and the model continues. llama-server's own completion reports its tokens: they are given instead
              of text, which the tokenizer could split differently.
    REPLAY    where a prefill would be wrong (a client's own grammar starts at its beginning, or the client has begun
              the answer itself), the request is sent again. The new answer must begin with what the client has, and
              only the rest is forwarded.

llama-server refuses to continue a message with tool calls. A partial call is given as text in the template's format
(partial_call.py), or everything before the call is given and the call is made again. Making it again until it begins
as the client has it draws from the calls that the model could have made (rejection sampling); a call that never
begins so ends in an error.

Not continued are streams of several choices, streams with log probabilities, and streams that outgrew the kept bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.rewrite import Continuation
from nemotron_ops.gateway.continuation.transcript import Transcript
from nemotron_ops.gateway.request.fields import SPELLINGS
from nemotron_ops.gateway.streams.fold import UNFOLDABLE
from nemotron_ops.gateway.streams.sse import NOT_JSON

TIMES_AGAIN = 3  # a tool call or replay that diverges
Fields = Mapping[str, msgspec.Raw]


def can_continue(api: Api, fields: Fields) -> bool:
    """Whether the stream of such a request can be continued."""
    if api is Api.OTHER or UNFOLDABLE & fields.keys():
        return False
    if bytes(fields.get("n", b"1")) not in (b"1", b"null"):
        return False
    return api not in (Api.COMPLETION, Api.NATIVE) or bytes(fields.get("prompt", b""))[:1] == b'"'


def continuation(
    api: Api,
    fields: Fields,
    transcript: Transcript,
    *,
    again: int = 0,
    closed: bool = False,
    call: str = "",
    tail: str | None = None,
) -> Continuation | None:
    """How to continue after `transcript`, or None if no continuation would be correct.

    `again`: how many continuations have diverged. `closed`: the reasoning is over, although no content follows. `call`
    and `tail`: the text of a partial tool call, and what the client has received after it.
    """
    if not can_continue(api, fields) or transcript.finished:
        return None
    changed = dict(fields)
    if again:
        _change_seed(changed, again)
    if not (transcript.reasoning or transcript.content or call) or _has_own_grammar(api, fields):
        return replay(changed, transcript)
    given = transcript.tokens + (transcript.call_tokens if call else 0)
    _lower_limit(api, changed, given)
    if api in (Api.COMPLETION, Api.NATIVE):
        try:
            prompt = msgspec.json.decode(fields["prompt"], type=str)
        except NOT_JSON:
            return None
        changed["prompt"] = _raw(
            [prompt, *transcript.token_ids] if transcript.token_ids else prompt + transcript.content
        )
        return Continuation(body=msgspec.json.encode(changed), transcript=transcript, prior_tokens=given)
    if not _may_be_answered(turns := _turns(fields)):
        return replay(dict(fields), transcript)
    closed = closed or bool(transcript.content or transcript.calls)
    changed["messages"] = _raw([*turns, *_beginning(api, transcript, call, closed=closed)])
    if api is Api.MESSAGES:  # llama-server repeats the prefill here (tools/server/server-schema.cpp:327, v0.5.0)
        return Continuation(
            body=msgspec.json.encode(changed), transcript=transcript, prior_tokens=given,
            skip_reasoning=transcript.reasoning, skip_content=transcript.content, closed=closed,
        )  # fmt: skip
    changed["add_generation_prompt"] = _raw(False)
    changed["continue_final_message"] = _raw("content" if closed else "reasoning_content")
    body = msgspec.json.encode(changed)
    return Continuation(body=body, transcript=transcript, prior_tokens=given, closed=closed, tail=tail)


def replay(fields: Fields, transcript: Transcript) -> Continuation:
    """The request sent again: its answer must begin with the transcript."""
    body = msgspec.json.encode(dict(fields))
    return Continuation(
        body=body,
        transcript=transcript,
        skip_reasoning=transcript.reasoning,
        skip_content=transcript.content,
        replays=True,
    )


def _change_seed(fields: dict[str, msgspec.Raw], again: int) -> None:
    """Change the seed: the same one would make the same answer."""
    try:
        seed = msgspec.json.decode(fields["seed"], type=int)
    except (KeyError, *NOT_JSON):
        return
    fields["seed"] = _raw(max(0, seed) + again)


def _has_own_grammar(api: Api, fields: Fields) -> bool:
    """Whether the client's own grammar would start at its beginning.

    In chats llama-server advances the grammars of `response_format` and of tools through the prefill
    (common/sampling.cpp:294, v0.5.0), but no other grammar.
    """
    return "grammar" in fields or (api in (Api.COMPLETION, Api.NATIVE) and "json_schema" in fields)


def _turns(fields: Fields) -> list[Any]:
    """The turns of the conversation, unchanged; empty if there is no conversation."""
    raw = fields.get("messages", msgspec.Raw(b"[]"))
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except NOT_JSON:
        return []


def _may_be_answered(turns: list[Any]) -> bool:
    """Whether the next turn is the assistant's, and the client has not begun it."""
    if not turns:
        return False
    try:
        last = turns[-1] if isinstance(turns[-1], dict) else msgspec.json.decode(turns[-1])
    except NOT_JSON:
        return False
    return isinstance(last, dict) and bool(last.get("role", "assistant") != "assistant")


def _beginning(api: Api, transcript: Transcript, call: str, *, closed: bool) -> list[dict[str, Any]]:
    """The transcript as the beginning of the answer, in the format of `api`."""
    reasoning, content = transcript.reasoning, transcript.content + call
    if closed and reasoning.endswith("\n"):
        reasoning = reasoning[:-1]  # Nemotron's template ends closed reasoning with its own line end
    match api:
        case Api.MESSAGES:
            blocks = [{"type": "thinking", "thinking": reasoning}] if reasoning else []
            if closed:  # even an empty text ends the reasoning
                blocks.append({"type": "text", "text": content})
            return [{"role": "assistant", "content": blocks}]
        case _:
            message = {"role": "assistant", "content": content}
            return [{**message, "reasoning_content": reasoning} if reasoning else message]


def _lower_limit(api: Api, fields: dict[str, msgspec.Raw], used: int) -> None:
    """Lower the token limits by the tokens that the client already has."""
    for name in SPELLINGS[api]:
        try:
            limit = msgspec.json.decode(fields[name]) if name in fields else None
        except NOT_JSON:
            continue
        if isinstance(limit, int) and limit > 0:
            fields[name] = _raw(max(1, limit - used))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
