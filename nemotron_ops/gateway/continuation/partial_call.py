"""A tool call in progress, as the text that the model was writing. Pure.

llama-server tells of a call as JSON, the model writes it in the words of its template. The template itself is asked for
them (`/apply-template`): it writes a conversation with that call, in which marks stand before the call and at the end
of the last text in its arguments. What is between them is where the model was, and it can go on from there; what the
client has seen behind that text (a quote, a number) it writes again.

Only a text can be cut anywhere: a call that has none among its arguments yet is made again instead.
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
class HalfCall:
    """`body` is what the template is asked; `tail` is what the client has seen behind the last text."""

    body: bytes
    tail: str


def half_call(calls: Sequence[Call]) -> HalfCall | None:
    """What to ask the template, or None if `calls` do not end in a text."""
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
    return HalfCall(body=body, tail=last[cut:])


def text_of_call(answer: bytes) -> str | None:
    """The text of the call as far as it went, from the template's answer; None if the marks are not in it."""
    try:
        prompt = msgspec.json.decode(answer)["prompt"]
        begun, found, rest = str(prompt).partition(BEGIN)
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
    text, ended, _ = rest.partition(END)
    return text if begun and found and ended else None


def end_of_last_text(arguments: str) -> int | None:
    """Where in the beginning of a JSON object the last text ends that is a value of its own; None if none is.

    A text of which there is nothing yet does not count: after a mere line end a tokenizer may cut otherwise.
    """
    end: int | None = None
    begin = depth = place = 0
    quoted = value = after_colon = False
    while place < len(arguments):
        letter = arguments[place]
        if quoted and letter == "\\":
            size = ESCAPE.get(arguments[place + 1 : place + 2], 2)
            if place + size > len(arguments):
                break  # half an escape
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
