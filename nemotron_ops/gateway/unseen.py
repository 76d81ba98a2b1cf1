"""What of a continuation's text the client has not seen yet. Pure."""

from __future__ import annotations

from dataclasses import replace

from nemotron_ops.gateway.said import Said


class Diverged(Exception):
    """What is said again differs from what the client has seen."""


class Unseen:
    """Takes the parts of a continuation in their order; gives back what is new of each.

    `skip_reasoning` and `skip_content` are what will be repeated; tool calls are always made again.
    """

    def __init__(self, said: Said, *, skip_reasoning: str, skip_content: str, closed: bool = False) -> None:
        self.reasoning = said.reasoning  # all of it, as the client will have it
        self.content = said.content
        self._skip_reasoning = skip_reasoning
        self._skip_content = skip_content
        self._calls = [replace(call) for call in said.calls]  # what is left to repeat of each
        self._silent = said.ending
        self._thought_out = closed or said.thought_out or bool(said.content or said.calls)

    def thought(self, text: str) -> str:
        """Thinking. Raises Diverged, also where new thoughts follow upon an answer."""
        left, self._skip_reasoning = _unseen(text, self._skip_reasoning)
        if self._thought_out:
            _must_be_blank(left)  # the line end with which llama-server closes a given thought
            return ""
        self.reasoning += left
        return left

    def text(self, text: str) -> str:
        """Text of the answer. Raises Diverged."""
        left, self._skip_content = _unseen(text, self._skip_content)
        if self._silent or any(call.name or call.arguments for call in self._calls):
            _must_be_blank(left)
            return ""
        self.content += left
        return left

    def name(self, index: int, name: str) -> bool:
        """A tool call's name; returns whether it is new. Raises Diverged."""
        if index >= len(self._calls):
            if self._silent:
                raise Diverged
            return True
        if name != self._calls[index].name:
            raise Diverged
        self._calls[index].name = ""
        return False

    def arguments(self, index: int, text: str) -> str:
        """A piece of a tool call's arguments. Raises Diverged."""
        if index >= len(self._calls):
            return text
        call = self._calls[index]
        left, call.arguments = _unseen(text, call.arguments)
        if self._silent:
            _must_be_blank(left)
        return left

    def end(self) -> None:
        """The answer is over. Raises Diverged if it did not repeat all that the client has seen."""
        _must_be_blank(self._skip_content + self._skip_reasoning)
        if any(call.name or call.arguments for call in self._calls):
            raise Diverged


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
