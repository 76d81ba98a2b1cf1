"""Drops from a continuation the text that the client already has. Pure."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.continuation.transcript import Transcript
from nemotron_ops.gateway.streams.relay import Diverged


class Overlap:
    """Takes the parts of a continuation in order, and returns the new text of each.

    `skip_reasoning` and `skip_content` will be repeated. Tool calls are made again, unless there is a `tail`: then the
    last call continues before that end of its arguments.
    """

    def __init__(
        self,
        transcript: Transcript,
        *,
        skip_reasoning: str,
        skip_content: str,
        closed: bool = False,
        tail: str | None = None,
    ) -> None:
        self._reasoning = [transcript.reasoning]
        self._content = [transcript.content]
        self._calls = [[call.arguments] for call in transcript.calls]
        self._names = [call.name for call in transcript.calls]
        self._skip_reasoning = skip_reasoning
        self._skip_content = skip_content
        self._skip_calls = self.calls
        self._unnamed = set(range(len(transcript.calls)))
        if tail is not None:
            self._skip_calls = [*([""] * (len(transcript.calls) - 1)), tail]
            self._unnamed = set()
        self._call_continues = tail is not None
        self._ending = transcript.ending
        self._reasoning_closed = closed or transcript.reasoning_closed or bool(transcript.content or transcript.calls)

    @property
    def reasoning(self) -> str:
        """The whole text that the client has now."""
        return "".join(self._reasoning)

    @property
    def content(self) -> str:
        """The whole text that the client has now."""
        return "".join(self._content)

    @property
    def calls(self) -> list[str]:
        """The arguments that the client has now, of each call that had begun."""
        return ["".join(pieces) for pieces in self._calls]

    def take_reasoning(self, text: str) -> str:
        """Take reasoning. Raises Diverged, also if new reasoning follows content."""
        new, self._skip_reasoning = _after(text, self._skip_reasoning)
        if self._reasoning_closed:
            _must_be_blank(new)  # llama-server ends given reasoning with a line end
            return ""
        self._reasoning.append(new)
        return new

    def take_content(self, text: str) -> str:
        """Take content. Raises Diverged."""
        new, self._skip_content = _after(text, self._skip_content)
        if self._ending or self._calls_missing():
            _must_be_blank(new)
            return ""
        self._content.append(new)
        return new

    def take_name(self, index: int, name: str) -> bool:
        """Take a tool call's name; returns whether the call is new. Raises Diverged."""
        if index >= len(self._names):
            if self._ending:
                raise Diverged
            return True
        if name != self._names[index]:
            raise Diverged
        self._unnamed.discard(index)
        return False

    def take_arguments(self, index: int, text: str) -> str:
        """Take a piece of a tool call's arguments. Raises Diverged."""
        if index >= len(self._calls):
            return text
        new, self._skip_calls[index] = _after(text, self._skip_calls[index])
        if self._ending:
            _must_be_blank(new)
        self._calls[index].append(new)
        return new

    def end(self, *, called: bool = True) -> None:
        """The answer is over. Raises Diverged if it did not repeat all that the client has.

        `called`: it ended with complete tool calls, by its own finish reason.
        """
        _must_be_blank(self._skip_content + self._skip_reasoning)
        if self._calls_missing() or (self._call_continues and called and not all(map(_is_json, self.calls))):
            raise Diverged

    def _calls_missing(self) -> bool:
        return bool(self._unnamed) or any(self._skip_calls)


def _after(text: str, seen: str) -> tuple[str, str]:
    """The part of `text` after `seen`, and the part of `seen` still to come. Raises Diverged if they differ."""
    if not seen:
        return text, ""
    if len(text) <= len(seen):
        if not seen.startswith(text):
            raise Diverged
        return "", seen[len(text) :]
    if not text.startswith(seen):
        raise Diverged
    return text[len(seen) :], ""


def _must_be_blank(text: str) -> None:
    if text.strip():
        raise Diverged


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True
