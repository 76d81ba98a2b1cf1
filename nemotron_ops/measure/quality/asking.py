"""Asks items at an endpoint, several at once. asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from nemotron_ops.errors import EngineError
from nemotron_ops.measure.quality.item import Answer, Call, Item
from nemotron_ops.measure.request import Received, Target, send
from nemotron_ops.progress import Report, Step, silent

HEAL = "X-Heal-Tool-Calls"


def ask_all(
    target: Target, items: Sequence[Item], *, concurrency: int = 4, fields: Mapping[str, Any] | None = None,
    heal: str = "", report: Report = silent, what: str = "ask",
) -> tuple[Answer, ...]:  # fmt: skip
    """One answer per item, in order. `fields` go into each request; `heal` is the level of healing of tool calls.

    Raises EngineError if not one item was answered.
    """
    if heal:
        target = replace(target, headers=((HEAL, heal),))
    answers = asyncio.run(_ask_all(target, items, concurrency, fields or {}, report, what))
    if items and all(a.error for a in answers):
        raise EngineError(f"cannot ask {target.model}: {answers[0].error}", hint="see `nemotron-ops status`")
    return answers


async def _ask_all(
    target: Target, items: Sequence[Item], concurrency: int, fields: Mapping[str, Any], report: Report, what: str
) -> tuple[Answer, ...]:
    found: dict[int, Answer] = {}
    numbers = iter(range(len(items)))

    async def client() -> None:
        for n in numbers:
            found[n] = answer_of(await send(target, body_of(items[n], target.model, fields)))
            report(Step(what=what, done=len(found), total=len(items)))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    return tuple(found[n] for n in range(len(items)))


def body_of(item: Item, model: str, fields: Mapping[str, Any]) -> bytes:
    """The request for an item."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": item.prompt}], **fields}
    if item.tools:
        body["tools"] = list(item.tools)
    return msgspec.json.encode(body)


def answer_of(received: Received) -> Answer:
    """The answer in a whole chat completion."""
    if received.error:
        return Answer(error=received.error)
    try:
        value = msgspec.json.decode(b"".join(data for _, data in received.chunks))
        choice = value["choices"][0]
        message = choice["message"]
        calls = tuple(
            Call(name=str(c["function"]["name"]), arguments=str(c["function"]["arguments"]))
            for c in message.get("tool_calls") or ()
        )
        return Answer(
            content=message.get("content") or "",
            calls=calls,
            finish_reason=choice.get("finish_reason") or "",
            tokens=int((value.get("usage") or {}).get("completion_tokens") or 0),
        )
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError) as exc:
        return Answer(error=f"the answer is no chat completion: {type(exc).__name__}")
