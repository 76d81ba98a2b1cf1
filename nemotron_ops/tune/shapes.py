"""Five shapes of rows as one: messages with their reasoning. Pure.

    messages            {"messages": [{"role", "content", "reasoning_content"?, "tool_calls"?}], "tools"?}
    sharegpt            {"conversations": [{"from", "value"}], "system"?}
    alpaca              {"instruction", "input"?, "output", "system"?, "history"?}
    prompt/completion   {"prompt", "completion"}, texts or messages
    gym                 {"responses_create_params": {"input", "tools"?}, …}: a task for reinforcement learning

`<think>…</think>` at the head of an answer is split off as its reasoning, as llama-server does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<think>", "</think>"
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
PREFERENCE = ({"chosen", "rejected"}, {"prompt", "chosen"})


class ShapeError(ValueError):
    """A row has none of the five shapes; the text says what is wrong."""


@dataclass(slots=True)
class Message:
    """One turn. `calls` are the names of the tools that it calls."""

    role: str
    content: str
    reasoning: str = ""
    calls: tuple[str, ...] = ()


@dataclass(slots=True)
class Sample:
    """One row: its turns, the names of the tools it offers (None: it names none), and its shape."""

    messages: list[Message]
    shape: str
    tools: frozenset[str] | None = None


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The row as a sample. Raises ShapeError."""
    for shape, key, read in SHAPES:
        if key in row:
            messages = read(row)
            return Sample(messages, shape, _tool_names(row, shape))
    if any(keys <= row.keys() for keys in PREFERENCE):
        raise ShapeError("a row of preferences (chosen, rejected) is not used here")
    if "text" in row:
        raise ShapeError("a row of plain text has no turns: give messages, or prompt and completion")
    names = ", ".join(sorted(map(str, row))[:6]) or "none"
    raise ShapeError(f"no known shape has the keys: {names}")


def split_reasoning(text: str) -> tuple[str, str]:
    """Reasoning and answer of a text that may begin with a think block."""
    if CLOSE not in text:
        return "", text
    head = text.lstrip()
    if not head.startswith(OPEN):
        return "", text
    reasoning, _, answer = head[len(OPEN) :].partition(CLOSE)
    return reasoning.strip(), answer.lstrip("\n")


def text_of(content: object) -> str:
    """The text of a message's content: a text, or parts of which each is a text. Raises ShapeError."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "".join(texts)
        raise ShapeError("a message holds parts that are no text (images, audio)")
    raise ShapeError("a message's content is neither a text nor a list of parts")


def _messages(row: Mapping[str, Any]) -> list[Message]:
    turns = row["messages"]
    if isinstance(turns, str):  # a cell of a CSV file
        turns = _decoded(turns)
    return _turns(turns)


def _turns(turns: object) -> list[Message]:
    if not isinstance(turns, list) or not turns:
        raise ShapeError("the list of messages is empty, or no list")
    return [_message(turn) for turn in turns]


def _message(turn: object) -> Message:
    if not isinstance(turn, dict):
        raise ShapeError("a message is no object")
    role = turn.get("role")
    if role not in ROLES:
        raise ShapeError(f"a message has the role {role!r}")
    content = turn.get("content")
    if not isinstance(content, str):
        content = text_of(content)
    if role != "assistant":
        return Message("system" if role == "developer" else role, content)
    reasoning = turn.get("reasoning_content") or turn.get("reasoning") or ""
    if not isinstance(reasoning, str):
        raise ShapeError("a message's reasoning is no text")
    if not reasoning:
        reasoning, content = split_reasoning(content)
    calls = turn.get("tool_calls")
    return Message(role, content, reasoning, _call_names(calls) if calls else ())


def _call_names(calls: object) -> tuple[str, ...]:
    if not isinstance(calls, list):
        raise ShapeError("tool_calls is no list")
    names = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ShapeError("a tool call has no name")
        names.append(function["name"])
    return tuple(names)


def _sharegpt(row: Mapping[str, Any]) -> list[Message]:
    turns = row["conversations"]
    if isinstance(turns, str):
        turns = _decoded(turns)
    if not isinstance(turns, list) or not turns:
        raise ShapeError("the list of conversations is empty, or no list")
    found = _system(row)
    for turn in turns:
        if not isinstance(turn, dict) or "from" not in turn:
            raise ShapeError("a turn of the conversation has no `from`")
        role = SHAREGPT_ROLES.get(str(turn["from"]).lower())
        if role is None:
            raise ShapeError(f"a turn of the conversation is from {turn['from']!r}")
        text = text_of(turn.get("value"))
        if str(turn["from"]).lower() in ("function_call", "tool_call"):
            found.append(Message(role, "", "", _text_call(text)))
        else:
            found.append(_answer(text) if role == "assistant" else Message(role, text))
    return found


def _text_call(text: str) -> tuple[str, ...]:
    call = _decoded(text)
    return _call_names(call if isinstance(call, list) else [call])


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    if "output" not in row and "response" not in row:
        raise ShapeError("instruction without output")
    found = _system(row)
    for turn in row.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2:
            raise ShapeError("a turn of the history is no pair of texts")
        found += [Message("user", text_of(turn[0])), _answer(turn[1])]
    asked = [text_of(row["instruction"]), text_of(row.get("input"))]
    found.append(Message("user", "\n\n".join(part for part in asked if part)))
    return [*found, _answer(row.get("output", row.get("response")))]


def _pair(row: Mapping[str, Any]) -> list[Message]:
    prompt, completion = row["prompt"], row.get("completion", row.get("response"))
    if completion is None:
        raise ShapeError("prompt without completion")
    found = _system(row)
    found += _turns(prompt) if isinstance(prompt, list) else [Message("user", text_of(prompt))]
    if isinstance(completion, list):
        return [*found, *_turns(completion)]
    answer = _answer(completion)
    reasoning = row.get("reasoning_content") or row.get("reasoning")
    if isinstance(reasoning, str) and not answer.reasoning:
        answer.reasoning = reasoning
    return [*found, answer]


def _gym(row: Mapping[str, Any]) -> list[Message]:
    asked = row["responses_create_params"]
    given = asked.get("input") if isinstance(asked, dict) else None
    if isinstance(given, str):
        return [Message("user", given)]
    if not isinstance(given, list) or not given:
        raise ShapeError("responses_create_params has no input")
    turns = [item for item in given if isinstance(item, dict) and item.get("type", "message") == "message"]
    return [_message(turn) for turn in turns]


def _system(row: Mapping[str, Any]) -> list[Message]:
    system = row.get("system")
    return [Message("system", text_of(system))] if system else []


def _answer(text: object) -> Message:
    reasoning, answer = split_reasoning(text_of(text))
    return Message("assistant", answer, reasoning)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ShapeError(f"a cell is no JSON: {exc}") from exc


def _tool_names(row: Mapping[str, Any], shape: str) -> frozenset[str] | None:
    tools = row["responses_create_params"].get("tools") if shape == "gym" else row.get("tools")
    if isinstance(tools, str) and tools:
        tools = _decoded(tools)
    if tools is None or not isinstance(tools, Sequence) or isinstance(tools, str):
        return None
    functions = [t.get("function", t) for t in tools if isinstance(t, dict)]
    return frozenset(f["name"] for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str))


SHAPES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], list[Message]]], ...] = (
    ("gym", "responses_create_params", _gym),
    ("messages", "messages", _messages),
    ("sharegpt", "conversations", _sharegpt),
    ("alpaca", "instruction", _alpaca),
    ("prompt/completion", "prompt", _pair),
)
