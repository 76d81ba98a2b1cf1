"""Renders training samples with the chat template of the GGUF that will be served. Pure.

One sample for each turn of the assistant: its prompt is what the server would send for the history, in that turn's mode
(thinking or direct), and its completion is the rest up to the end of the turn. Only the completion is learnt. So the
template's own `<think>` or `<think></think>` is never learnt, and neither is an earlier turn whose reasoning the
template has cut off already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemotron_ops.errors import ModelError
from nemotron_ops.tune.shapes import Message, Sample


class RenderError(ValueError):
    """A sample cannot be rendered; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One sample as text. `asked` are the messages of its prompt, as a request to the server would hold them."""

    prompt: str
    completion: str
    thinking: bool
    asked: tuple[dict[str, Any], ...]


class Template:
    """A chat template, in a sandbox: it comes with the model, and is not trusted."""

    def __init__(self, text: str, *, bos: str = "", eos: str = "") -> None:
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        env.globals["raise_exception"] = _raise
        try:
            self._template = env.from_string(text)
        except TemplateError as exc:
            raise ModelError(f"cannot use the model's chat template: {exc}") from exc
        self._always = {"bos_token": bos, "eos_token": eos}

    def text(self, messages: list[dict[str, Any]], *, prompt: bool, thinking: bool) -> str:
        """The messages as text; with `prompt` also the beginning of an answer. Raises RenderError."""
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=prompt, enable_thinking=thinking, **self._always
            )
        except (TemplateError, RecursionError, TypeError, ValueError, OverflowError) as exc:
            raise RenderError(f"the chat template refuses it: {exc}") from exc


def rendered(sample: Sample, template: Template) -> Iterator[Rendered]:
    """One sample for each turn of the assistant. Raises RenderError."""
    if any(m.calls or m.role == "tool" for m in sample.messages):
        raise RenderError("rows with tool calls are not trained on")
    turns = [_turn(m) for m in sample.messages]
    for i, message in enumerate(sample.messages):
        if message.role != "assistant":
            continue
        thinking = bool(message.reasoning.strip())
        prompt = template.text(turns[:i], prompt=True, thinking=thinking)
        whole = template.text(turns[: i + 1], prompt=False, thinking=thinking)
        if not whole.startswith(prompt):
            raise RenderError("the chat template renders the answer in another mode than its prompt")
        completion = whole[len(prompt) :].rstrip("\n")
        if not completion:
            raise RenderError("nothing of the answer is left to learn")
        yield Rendered(prompt=prompt, completion=completion, thinking=thinking, asked=tuple(turns[:i]))


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    return turn | ({"reasoning_content": message.reasoning} if message.reasoning.strip() else {})


def _raise(message: str) -> None:
    raise TemplateError(message)
