"""Holds back what may be a call in a chat stream, and heals it at its end. Pure.

Text flows until a letter that can begin a marker; then the block is held until it is known to be a call or not. What is
no call goes out unchanged. The engine's own calls are held until they are whole, and healed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_ops.gateway.toolcalls.chat_shape import mark_invalid, written
from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level, ToolCall
from nemotron_ops.gateway.toolcalls.held_calls import HeldCalls
from nemotron_ops.gateway.toolcalls.outlet import Outlet
from nemotron_ops.gateway.toolcalls.plain_words import NONE, PlainWords
from nemotron_ops.gateway.toolcalls.read_json import NOT_JSON

DATA = b"data: "
CONTENT = b'"content":"'
THOUGHT = b'"reasoning_content":"'
CALLS = b'"tool_calls":['
FINISH = b'"finish_reason":"'


class ChatStream:
    """One chat's events on their way to `outlet`. `answer` holds what healing found, once the stream has ended."""

    def __init__(self, ladder: Ladder, outlet: Outlet) -> None:
        self.answer = Answer()
        self._ladder, self.outlet = ladder, outlet
        self._words = PlainWords(CONTENT)
        self._scanner = ladder.scanner(self._words.text)
        self._at_ease = False
        self._thoughts = Thoughts(ladder)
        self._over = False  # the engine calls by itself, or the stream has ended
        self._held = HeldCalls(active=ladder.level is not Level.OFF)
        self._calls: dict[int, ToolCall] = {}  # the engine's own
        self._unpromoted = ""  # what was held at the end

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Take whole events; what may go out goes to the outlet."""
        if self._at_ease:
            words = self._words
            word = data[words.at : words.until]
            event, kept = words.events.get(word, NONE)
            if event == data:
                words.said.append(kept)
                self.outlet.send(data, last=last)
                return
            if words.took(data, word):
                self.outlet.send(data, last=last)
                return
        if self._thoughts.pass_by(data):
            self.outlet.send(data, last=last)
            return
        if self._over and CALLS not in data and FINISH not in data:
            self.outlet.send(self._held.take() + data if last else data, last=last)
            return
        out = b"".join(self._event(event + b"\n\n") for event in data.split(b"\n\n") if event)
        if out:
            self.outlet.send(out, last=last)

    def _event(self, event: bytes) -> bytes:
        thoughts = self._thoughts
        if not event.startswith(DATA) or not (
            CONTENT in event or CALLS in event or FINISH in event or (not thoughts.over and THOUGHT in event)
        ):
            return event
        try:
            value = msgspec.json.decode(event[len(DATA) :])
            choice = value["choices"][0]
            delta = choice["delta"]
        except (*NOT_JSON, KeyError, IndexError, TypeError):
            return event
        if not isinstance(delta, dict):
            return event
        before = b""
        if not thoughts.over:
            if thought := delta.get("reasoning_content"):
                return thoughts.event(event, value, delta, thought)
            if delta.get("content") or delta.get("tool_calls"):
                before = thoughts.closed(value)
        if delta.get("tool_calls"):
            return before + self._engines_call(event, value, delta)
        if self._over and not choice.get("finish_reason"):
            return before + event
        return before + self._said(event, value, choice, delta)

    def _engines_call(self, event: bytes, value: dict[str, Any], delta: dict[str, Any]) -> bytes:
        kept = [call for call in delta["tool_calls"] if self._kept(call.get("index", 0))]
        if len(kept) < len(delta["tool_calls"]):
            self.answer.note({"parallel"})
            delta["tool_calls"] = kept
            event = DATA + msgspec.json.encode(value) + b"\n\n" if kept else b""
        for call in kept:
            function = call.get("function") or {}
            known = self._calls[call.get("index", 0)]
            known.id = known.id or str(call.get("id") or "")
            known.name += function.get("name") or ""
            known.arguments += function.get("arguments") or ""
        held = "" if self._over else self._scanner.end()[0]
        self._over, self._at_ease = True, False
        return (_with(value, {"content": held}) if held else b"") + (self._held.add(event) if event else b"")

    def _kept(self, index: int) -> bool:
        """Whether a call is one of those that the request allows; a new one is then among the known."""
        if index not in self._calls and len(self._calls) < self._ladder.most:
            self._calls[index] = ToolCall("", "")
        return index in self._calls

    def _said(self, event: bytes, value: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> bytes:
        content = delta.get("content")
        text = content if isinstance(content, str) else ""
        out = text if self._over else self._fed(text)
        reason = choice.get("finish_reason")
        if reason:
            return self._end(value, choice, delta, out)
        if out == text:
            self._words.learn(event, text)
            return event
        if out or len(delta) > 1:
            delta["content"] = out
            return DATA + msgspec.json.encode(value) + b"\n\n"
        return b""

    def _fed(self, text: str) -> str:
        """What of more text may go out."""
        out, scanner = self._scanner.feed(text), self._scanner
        if not scanner.attentive:
            self._words.said.append(out.encode())
            scanner.next_blob()
        self._at_ease = scanner.at_ease
        return out

    def _end(self, value: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any], out: str) -> bytes:
        """The last event of the answer, with the calls that were text before it."""
        answer = self.answer
        answer.calls = list(self._calls.values())
        answer.length = choice["finish_reason"] == "length"
        rest, leaks = ("", []) if self._over else self._scanner_end(hold=answer.length)
        before = b""
        if not self._thoughts.over:  # there is nothing but thoughts
            leaks = self._thoughts.leaks() if not (answer.length or answer.calls) else []
            right = bool(leaks) and self._ladder.promoted(leaks) is not None
            before = b"" if right else self._thoughts.closed(value)
            leaks = leaks if right else []
        promoted = self._ladder.promoted(leaks) if leaks and not answer.length else None
        if leaks and promoted is None:
            rest = self._unpromoted
        self._over = True
        said = before + (_with(value, {"content": out + rest}) if out + rest else b"")
        delta.pop("content", None)
        if promoted is None:
            said += self._checked(value)
            if answer.steps:
                value["tool_calls_healed"] = answer.steps
            return said + DATA + msgspec.json.encode(value) + b"\n\n"
        answer.calls, steps = promoted
        answer.note(steps)
        calls = [{"index": place, **written(call)} for place, call in enumerate(answer.calls)]
        said += _with(value, {"tool_calls": calls})
        choice["finish_reason"] = "tool_calls"
        value.pop("lost_in_thought", None)  # what was lost is found
        value["tool_calls_healed"] = answer.steps
        return said + DATA + msgspec.json.encode(value) + b"\n\n"

    def _checked(self, value: dict[str, Any]) -> bytes:
        """The engine's own calls, healed; as they came if nothing had to be. `value` names wrong and cut ones."""
        answer, ladder = self.answer, self._ladder
        healed: set[str] = set()
        for call in answer.calls:
            healed |= ladder.mend(call) if self._held.whole and not answer.length else ladder.judge(call)
        if answer.length and answer.calls:
            ladder.check(answer)
            if answer.truncated_call:
                value["truncated_tool_call"] = answer.truncated_call
        mark_invalid(value, ladder, answer)
        events = self._held.take()
        if not healed:
            return events
        answer.note(healed)
        return _with(value, {"tool_calls": [{"index": n, **written(call)} for n, call in enumerate(answer.calls)]})

    def _scanner_end(self, *, hold: bool) -> tuple[str, list[Any]]:
        self._unpromoted = self._scanner.held
        rest, leaks = self._scanner.end()
        return (self._unpromoted, []) if hold else (rest, leaks)


class Thoughts:
    """The thinking of a chat stream: a call at its end is held back, and taken for one if nothing else is said."""

    def __init__(self, ladder: Ladder) -> None:
        self.over = ladder.level is Level.OFF  # something else was said
        self._words = PlainWords(THOUGHT)
        self._scanner = ladder.scanner(self._words.text)
        self._at_ease = False
        self._held = ""  # of a call that turned out to be none
        self._ahead = ""  # white space that went out although the scanner holds it

    def pass_by(self, data: bytes) -> bool:
        """Whether an event carries one more plain word of thinking."""
        return self._at_ease and self._words.took(data, data[self._words.at : self._words.until])

    def event(self, event: bytes, value: dict[str, Any], delta: dict[str, Any], text: str) -> bytes:
        """What of an event with more thinking may go out. White space does, also where it may come before a call."""
        scanner, ahead = self._scanner, len(self._ahead)
        out = scanner.feed(text)
        if not scanner.attentive:
            self._words.said.append(out.encode())
            scanner.next_blob()
        self._at_ease = scanner.at_ease
        held = scanner.held
        space = held if held.isspace() else ""
        now = (out + space)[ahead:]
        if out or space:
            self._ahead = space
        if now == text:
            self._words.learn(event, text)
            return event
        return _with(value, {**delta, "reasoning_content": now}) if now else b""

    def leaks(self) -> list[Any]:
        """The calls that were held back."""
        self._held = self._scanner.held
        return self._scanner.end()[1]

    def closed(self, value: dict[str, Any]) -> bytes:
        """What was held back, as an event like `value`; no thinking follows."""
        held = (self._held + self._scanner.held)[len(self._ahead) :]
        self.over, self._at_ease = True, False
        return _with(value, {"reasoning_content": held}) if held else b""


def _with(value: dict[str, Any], delta: dict[str, Any]) -> bytes:
    """An event like `value` with another delta, in the middle of the answer."""
    choice = {**value["choices"][0], "delta": delta, "finish_reason": None}
    kept = {name: inner for name, inner in value.items() if name not in ("usage", "timings")}
    return DATA + msgspec.json.encode({**kept, "choices": [choice]}) + b"\n\n"
