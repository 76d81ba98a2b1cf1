"""A chat's branch and settings as the body of a request; untouched fields are absent. Pure.

What nobody set is decided by the recipe's profile in the gateway, so this page never overrides a server's sampling by
accident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from nemotron_ops.studio.threads.tree import Message


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a person has set for a chat; None is untouched. `thinking` False sends no thinking."""

    model: str = ""
    system: str | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None  # tokens
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    keep_thinking: bool | None = None  # send earlier thinking with the next question


MOST_PANES = 8  # of a comparison
BOUNDS: dict[str, tuple[float, float]] = {
    "thinking_budget": (0, 1_000_000),
    "temperature": (0, 5),
    "top_p": (0, 1),
    "top_k": (0, 10_000),
    "min_p": (0, 1),
    "repeat_penalty": (0.1, 5),
    "presence_penalty": (-2, 2),
    "max_tokens": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
}
WHOLE = frozenset({"thinking_budget", "top_k", "max_tokens", "seed"})
SENT = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "max_tokens", "seed")
MOST_SYSTEM = 200_000  # letters


def settings_of(value: Mapping[str, Any]) -> Settings:
    """Checked settings from a page's JSON. Raises ValueError with a text for people; unknown keys are ignored."""
    kept: dict[str, Any] = {}
    for item in fields(Settings):
        given = value.get(item.name)
        if given is None or given == "":
            continue
        kept[item.name] = _checked(item.name, given)
    return Settings(**kept)


def _checked(name: str, given: Any) -> Any:
    if name in BOUNDS:
        low, high = BOUNDS[name]
        if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
            raise ValueError(f"{name}: expected a number from {low:g} to {high:g}")
        return int(given) if name in WHOLE else float(given)
    if name in ("thinking", "keep_thinking"):
        if not isinstance(given, bool):
            raise ValueError(f"{name}: expected yes or no")
        return given
    if not isinstance(given, str) or len(given) > MOST_SYSTEM:
        raise ValueError(f"{name}: expected a text of at most {MOST_SYSTEM} letters")
    return given


def as_json(settings: Settings) -> dict[str, Any]:
    """The fields that were set."""
    return {k: v for k, v in asdict(settings).items() if v is not None and v != ""}


def body(branch: Sequence[Message], settings: Settings, *, continued: bool = False) -> dict[str, Any]:
    """The request for the next answer of a branch; with `continued` the branch ends in an answer that goes on."""
    messages: list[dict[str, Any]] = []
    if settings.system:
        messages.append({"role": "system", "content": settings.system})
    for place, message in enumerate(branch):
        last = place == len(branch) - 1
        messages.append(_message(message, with_thinking=bool(settings.keep_thinking) or (continued and last)))
    made: dict[str, Any] = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    if settings.model:
        made["model"] = settings.model
    made |= {name: value for name in SENT if (value := getattr(settings, name)) is not None}
    if settings.thinking is not False:
        made["reasoning_control"] = True  # so that the thinking can be ended by hand
    if settings.thinking is not None:
        made["chat_template_kwargs"] = {"enable_thinking": settings.thinking}
    if settings.thinking_budget is not None:
        made["thinking_budget_tokens"] = settings.thinking_budget
    if continued:
        made["continue_final_message"] = True
        made["add_generation_prompt"] = False
    return made


def _message(message: Message, *, with_thinking: bool) -> dict[str, Any]:
    if message.images:
        parts: list[dict[str, Any]] = [{"type": "text", "text": message.sent}]
        parts += [{"type": "image_url", "image_url": {"url": url}} for url in message.images]
        return {"role": message.role, "content": parts}
    made: dict[str, Any] = {"role": message.role, "content": message.sent}
    if with_thinking and message.thinking:
        made["reasoning_content"] = message.thinking
    return made
