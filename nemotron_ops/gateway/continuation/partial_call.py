"""Turns a tool call that was cut in the middle into the text that the model was writing. Pure.

llama-server reports a call as JSON, while the model writes it in its template's format. The template is asked for that
text (`/apply-template`): it renders a conversation with the call, in which marks stand before the call and at the end
of the last string in its arguments. The text between the marks is where the model was, and it continues from there. The
model writes again what the client has received after that string (a quote, a number).

Only a string can be cut anywhere: a call without a string in its arguments is made again instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from nemotron_ops.gateway.continuation.transcript import Call

BEGIN = "FIRSTMARK"
END = "LASTMARK"
ESCAPE = {"u": 6}  # characters of \u0000; any other escape has two


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialCall:
    """`body` is the request to the template; `tail` is what the client has received after the last string."""

    body: bytes
    tail: str


def partial_call(calls: Sequence[Call]) -> PartialCall | None:
    """The request to the template, or None if `calls` do not end in a string."""
    if not calls or any(mark in call.arguments for call in calls for mark in (BEGIN, END)):
        return None
    last = calls[-1].arguments
    cut = end_of_last_text(last)
    if cut is None:
        return None
    arguments = [call.arguments for call in calls[:-1]] + [f'{last[:cut]}{END}"}}']
    if not all(map(_is_object, arguments)):
        return None
    written = [
        {"id": f"call{n}", "type": "function", "function": {"name": call.name, "arguments": text}}
        for n, (call, text) in enumerate(zip(calls, arguments, strict=True))
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "-"} for call in written]
    message = {"role": "assistant", "content": BEGIN, "tool_calls": written}
    messages = [{"role": "user", "content": "-"}, message, *results]
    body = msgspec.json.encode({"messages": messages, "add_generation_prompt": False})
    return PartialCall(body=body, tail=last[cut:])


def text_of_call(answer: bytes) -> str | None:
    """The text of the partial call, from the template's answer; None if the marks are not in it."""
    try:
        prompt = msgspec.json.decode(answer)["prompt"]
        begun, found, rest = str(prompt).partition(BEGIN)
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
    text, ended, _ = rest.partition(END)
    return text if begun and found and ended else None


def end_of_last_text(arguments: str) -> int | None:
    """Where the last string value ends in the beginning of a JSON object; None if there is none.

    An empty string does not count: after a bare line end the tokenizer may split the text differently.
    """
    end: int | None = None
    begin = depth = place = 0
    quoted = value = after_colon = False
    while place < len(arguments):
        letter = arguments[place]
        if quoted and letter == "\\":
            size = ESCAPE.get(arguments[place + 1 : place + 2], 2)
            if place + size > len(arguments):
                break  # an incomplete escape
            place += size
            continue
        if letter == '"':
            if quoted and value and place > begin:
                end = place
            elif not quoted:
                value, begin = depth == 1 and after_colon, place + 1
            quoted = not quoted
        elif not quoted:
            depth += (letter in "{[") - (letter in "}]")
        if not quoted and not letter.isspace():
            after_colon = letter == ":" and depth == 1
        place += 1
    return place if quoted and value and place > begin else end


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
