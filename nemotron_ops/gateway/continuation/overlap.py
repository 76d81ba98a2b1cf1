"""What of a continuation's text the client has not seen yet. Pure."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.continuation.transcript import Said
from nemotron_ops.gateway.streams.relay import Diverged


class Unseen:
    """Takes the parts of a continuation in their order; gives back what is new of each.

    `skip_reasoning` and `skip_content` are what will be repeated. Tool calls are made again, unless there is a `tail`:
    then they go on before that end of the last one.
    """

    def __init__(
        self, said: Said, *, skip_reasoning: str, skip_content: str, closed: bool = False, tail: str | None = None
    ) -> None:
        self._thoughts = [said.reasoning]
        self._words = [said.content]
        self._calls = [[call.arguments] for call in said.calls]
        self._names = [call.name for call in said.calls]
        self._skip_reasoning = skip_reasoning
        self._skip_content = skip_content
        self._skip_calls = self.calls
        self._unnamed = set(range(len(said.calls)))
        if tail is not None:
            self._skip_calls = [*([""] * (len(said.calls) - 1)), tail]
            self._unnamed = set()
        self._goes_on = tail is not None
        self._silent = said.ending
        self._thought_out = closed or said.thought_out or bool(said.content or said.calls)

    @property
    def reasoning(self) -> str:
        """All of it, as the client has it now."""
        return "".join(self._thoughts)

    @property
    def content(self) -> str:
        """All of it, as the client has it now."""
        return "".join(self._words)

    @property
    def calls(self) -> list[str]:
        """All arguments of each call that was begun, as the client has them now."""
        return ["".join(pieces) for pieces in self._calls]

    def thought(self, text: str) -> str:
        """Thinking. Raises Diverged, also where new thoughts follow upon an answer."""
        left, self._skip_reasoning = _unseen(text, self._skip_reasoning)
        if self._thought_out:
            _must_be_blank(left)  # the line end with which llama-server closes a given thought
            return ""
        self._thoughts.append(left)
        return left

    def text(self, text: str) -> str:
        """Text of the answer. Raises Diverged."""
        left, self._skip_content = _unseen(text, self._skip_content)
        if self._silent or self._owes_calls():
            _must_be_blank(left)
            return ""
        self._words.append(left)
        return left

    def name(self, index: int, name: str) -> bool:
        """A tool call's name; returns whether it is new. Raises Diverged."""
        if index >= len(self._names):
            if self._silent:
                raise Diverged
            return True
        if name != self._names[index]:
            raise Diverged
        self._unnamed.discard(index)
        return False

    def arguments(self, index: int, text: str) -> str:
        """A piece of a tool call's arguments. Raises Diverged."""
        if index >= len(self._calls):
            return text
        left, self._skip_calls[index] = _unseen(text, self._skip_calls[index])
        if self._silent:
            _must_be_blank(left)
        self._calls[index].append(left)
        return left

    def end(self, *, called: bool = True) -> None:
        """The answer is over. Raises Diverged if it did not repeat all that the client has seen.

        `called`: it says itself that its calls are whole.
        """
        _must_be_blank(self._skip_content + self._skip_reasoning)
        if self._owes_calls() or (self._goes_on and called and not all(map(_is_json, self.calls))):
            raise Diverged

    def _owes_calls(self) -> bool:
        return bool(self._unnamed) or any(self._skip_calls)


def _unseen(text: str, seen: str) -> tuple[str, str]:
    """What of `text` comes after `seen`, and what of `seen` is still to come. Raises Diverged if they differ."""
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
