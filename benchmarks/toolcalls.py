"""Measures what tools cost: a streamed token, a whole answer, the worst hostile text. Fails beyond its limits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.toolcalls.heal import Answer, Level
from nemotron_ops.gateway.toolcalls.healing import Healing
from nemotron_ops.gateway.toolcalls.messages_stream import written

TOKENS = 2000
ROUNDS = 15
HOSTILE_BYTES = 65536
LIMITS = {"a streamed token": 0.3, "a whole answer": 100.0, "the worst text of 64 KiB": 50_000.0}  # µs
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {
    Api.CHAT: {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    Api.MESSAGES: {"name": "get_weather", "input_schema": SCHEMA},
}
WORDS = [f" word{n}" for n in range(200)]
LEAK = "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
ANSWERS = ("It is cold in Oslo. " * 40, "I look.\n\n" + LEAK, "a < b, and b < c. " * 40)
HOSTILE = (
    "<tool_call>", "<function=", "<", "[TOOL_CALLS]", "<tool_call>\n{", "</tool_call>", "<parameter=city>", "```\n<",
    "<function=get_weather>\n<parameter=city>\n", '{"name":"get_weather","arguments":{',
)  # fmt: skip


class Sink:
    """Counts events."""

    def __init__(self) -> None:
        self.events = 0

    def send(self, data: bytes, *, last: bool = False) -> None:
        del data, last
        self.events += 1


def chat_event(word: str) -> bytes:
    choice = {"finish_reason": None, "index": 0, "delta": {"content": word}}
    rest = {"created": 1, "id": "chatcmpl-x", "model": "m", "object": "chat.completion.chunk"}
    return b"data: " + msgspec.json.encode({"choices": [choice], **rest}) + b"\n\n"


def message_event(word: str) -> bytes:
    return written({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})


START = written({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})


def healing(api: Api, level: Level) -> Healing:
    return Healing(api, read_fields(msgspec.json.encode({"tools": [TOOLS[api]]})), level)


def token_us(api: Api, level: Level) -> float:
    """What one more word of a stream costs beyond sending it, at best of several rounds: µs."""
    made = chat_event if api is Api.CHAT else message_event
    events = [made(WORDS[n % len(WORDS)]) for n in range(TOKENS)]
    before = () if api is Api.CHAT else (START,)

    def through(outlet: Any) -> float:
        for event in (*before, *events[: len(WORDS)]):
            outlet.send(event)
        begin = time.perf_counter()
        for event in events:
            outlet.send(event)
        return (time.perf_counter() - begin) / TOKENS * 1e6

    plain = min(through(Sink()) for _ in range(ROUNDS))
    return min(through(healing(api, level).stream(Sink())) for _ in range(ROUNDS)) - plain


def took_us(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e6


def answer_us(level: Level) -> float:
    """The median of healing a whole answer: µs."""
    ladder = healing(Api.CHAT, level).ladder
    return median(took_us(lambda text=text: ladder.heal(Answer(content=text))) for text in ANSWERS * 50)  # type: ignore[misc]


def hostile_us(level: Level) -> float:
    """The worst hostile text: µs."""
    ladder = healing(Api.CHAT, level).ladder
    texts = [(piece * HOSTILE_BYTES)[:HOSTILE_BYTES] for piece in HOSTILE]
    return max(took_us(lambda text=text: ladder.heal(Answer(content=text))) for text in texts)  # type: ignore[misc]


def main() -> int:
    """Print the numbers; 1 if one is over its limit."""
    found = {
        "a streamed token": max(token_us(api, level) for api in TOOLS for level in (Level.SAFE, Level.FULL)),
        "a whole answer": max(answer_us(level) for level in (Level.SAFE, Level.FULL)),
        "the worst text of 64 KiB": max(hostile_us(level) for level in (Level.SAFE, Level.FULL)),
    }
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        for name, us in found.items():
            print(f"tools: {name}: {us:,.2f} µs (at most {LIMITS[name]:,.1f})")
    return int(any(us > LIMITS[name] for name, us in found.items()))


if __name__ == "__main__":
    sys.exit(main())
