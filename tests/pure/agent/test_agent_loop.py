"""The loop's table, and the shapes of turns and items."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nemotron_ops.agent.apis.responses import ResponsesFace
from nemotron_ops.agent.apis.responses_events import Events
from nemotron_ops.agent.apis.responses_items import CODE, Seen
from nemotron_ops.agent.loop import Budgets, Progress, Said, Step, after_turn
from nemotron_ops.agent.tools.code import Code
from nemotron_ops.agent.tools.code_tools import result_text
from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.kinds import hosted
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool
from nemotron_ops.agent.tools.web import Web, WebTools
from nemotron_ops.sandbox.outcome import Item, Outcome
from nemotron_ops.sandbox.session import Sandbox

TOOL = {"type": "code_interpreter", "container": {"type": "auto"}}
BUDGETS = Budgets(turns=3, calls=2)


@pytest.mark.parametrize(
    ("before", "said", "step"),
    [
        (Progress(), Said(), Step()),
        (Progress(), Said(own=1), Step()),
        (Progress(), Said(hosted=1), Step(run=True, ask=True)),
        (Progress(), Said(hosted=1, own=1), Step(run=True)),
        (Progress(), Said(hosted=1, cut="max_output_tokens"), Step(reason="max_output_tokens")),
        (Progress(calls=2), Said(hosted=1), Step(reason="max_tool_calls")),
        (Progress(turns=2), Said(hosted=1), Step(run=True, reason="max_turns")),
        (Progress(turns=2), Said(), Step()),
    ],
)
def test_what_comes_after_a_turn(before: Progress, said: Said, step: Step) -> None:
    assert after_turn(before, said, BUDGETS)[1] == step


def test_a_loop_of_calls_ends_within_its_turns() -> None:
    progress, steps = Progress(), 0
    while True:
        progress, step = after_turn(progress, Said(hosted=1), Budgets(turns=5, calls=100))
        steps += 1
        if not step.ask:
            break
    assert (steps, step.reason) == (5, "max_turns")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"tools": [{**TOOL, "container": "cntr_1"}]}, "container"),
        ({"tools": [{**TOOL, "container": {"type": "auto", "file_ids": ["f"]}}]}, "file_ids"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"max_tool_calls": 0}, "max_tool_calls"),
        ({"max_tool_calls": True}, "max_tool_calls"),
        ({"tools": [TOOL, {"type": "function", "name": "code_interpreter"}]}, "named"),
        ({"tools": None}, "tools"),
        ({"input": {"a": 1}}, "input"),
        ({"include": [1]}, "include"),
    ],
)
def test_what_cannot_be_honoured_is_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidError, match=word):
        offered(json.dumps({"model": "m", "input": "x", "tools": [TOOL], **more}).encode())


def nothing() -> Any:
    raise AssertionError("no tool is run here")


def context() -> Context:
    open_session: Callable[[], Sandbox] = nothing
    tools: Callable[[], WebTools] = nothing
    return Context(api="responses", code=Code(open_session), web=Web(tools, "", 1000), letters=1000)


def offered(body: bytes) -> ResponsesFace:
    """A request whose tools are made."""
    face, shared = ResponsesFace(body, "cntr_1"), context()

    async def make() -> list[Tool]:
        found: list[Tool] = []
        for place, given in face.asked_for():
            row = hosted("responses", given)
            assert row is not None
            found += await row.make(given, place, shared)
        return found

    face.offer(asyncio.run(make()), shared.web)
    return face


def test_a_turn_asks_with_a_function_and_forces_a_call_only_once() -> None:
    asked = {"input": "x", "tools": [TOOL], "tool_choice": {"type": "code_interpreter"}, "max_tool_calls": 3}
    face = offered(json.dumps(asked).encode())
    first = face.turn_body()
    assert first["tools"][0]["name"] == "code_interpreter"
    assert first["tool_choice"] == {"type": "function", "name": "code_interpreter"}
    assert "max_tool_calls" not in first
    face.told(Call(id="c", name="code_interpreter", arguments="{}"), "4")
    later = face.turn_body()
    assert later["tool_choice"] == "auto"
    assert later["input"] == [
        {"role": "user", "content": "x"}, {"type": "function_call_output", "call_id": "c", "output": "4"},
    ]  # fmt: skip


def test_arguments_without_code_are_none() -> None:
    texts = ('{"code":"1"}', "", "[1]", '{"code":1}', '{"cod')
    assert [Call(id="c", name="x", arguments=text).text("code") for text in texts] == ["1", *[None] * 4]


def test_a_result_says_exit_code_limits_and_files() -> None:
    left = Item(id="i", name="a.png", mime="image/png", content=b"x")
    text = result_text(Outcome(stdout="1\n", exit_code=124, limits_hit=("time",), ended=True, images=(left,)), 1000)
    for words in ("1", "exit code 124", "limits hit: time", "variables are lost", "a.png"):
        assert words in text


def test_a_long_result_is_cut_in_the_middle() -> None:
    text = result_text(Outcome(stdout="a" * 20_000 + "end"), 16_000)
    assert len(text) < 17_000
    assert text.endswith("end")


@pytest.mark.parametrize(("include", "shown"), [((), None), (("code_interpreter_call.outputs",), "4")])
def test_outputs_come_only_when_asked_for(include: tuple[str, ...], shown: str | None) -> None:
    (tool,) = asyncio.run(hosted_tools(TOOL))
    call = Call(id="c", name=tool.name, arguments='{"code":"x"}')
    ran = Ran(text="4", detail=Outcome(stdout="4\n", backend="b"))
    item = CODE.item(Seen(id="ci", call=call, tool=tool, ran=ran, container="c", include=include))
    assert item["outputs"] == (shown and [{"type": "logs", "logs": shown}])
    assert item["status"] == "completed"


async def hosted_tools(given: dict[str, Any]) -> list[Tool]:
    row = hosted("responses", given)
    assert row is not None
    return await row.make(given, "tools[0]", context())


def test_items_of_two_turns_are_counted_on_and_usage_is_added() -> None:
    events = Events({"tools": [TOOL]}, {"code_interpreter"}, {})
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    message = {"type": "message", "id": "m1"}
    call = {"type": "function_call", "name": "code_interpreter"}
    seen = b""
    for items in ((message, call), (message,)):
        events.next_turn()
        seen += events.passed({"type": "response.created", "response": {"id": "r"}, "sequence_number": 0})
        for place, item in enumerate(items):
            added = {"type": "response.output_item.added", "output_index": place, "item": item}
            seen += events.passed(added) + events.passed({**added, "type": "response.output_item.done"})
        events.passed({"type": "response.completed", "response": {"usage": usage}})
    seen += events.finished("")
    got = [json.loads(line[6:]) for line in seen.decode().splitlines() if line.startswith("data: ")]
    assert [e["sequence_number"] for e in got] == list(range(len(got)))
    assert [e["output_index"] for e in got if e["type"].endswith("added")] == [0, 1]
    assert [e["type"] for e in got].count("response.created") == 1
    assert got[-1]["response"]["usage"]["total_tokens"] == 10
    assert got[-1]["response"]["tools"] == [TOOL]
