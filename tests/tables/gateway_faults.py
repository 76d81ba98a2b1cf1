"""Faults between gateway and engine, and what a client sees of each: one table for the tests and for the docs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.fakes.scripted_engine import LOADING, Play, dies_after, dies_saying, says

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "continuation.md"
BEGIN, END = "<!-- faults: generated from tests/tables/gateway_faults.py -->", "<!-- /faults -->"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail. `seen`: the client has received a part of the stream by then."""

    name: str
    play: Play | None  # None: nothing listens on its socket
    seen: bool


HALF_WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choices":[{'

FAULTS = (
    Fault(name="does not listen on its socket", play=None, seen=False),
    Fault(name="closes without an answer", play=says(b""), seen=False),
    Fault(name="closes in the middle of the head", play=says(b"HTTP/1.1 200 OK\r\nContent-Ty"), seen=False),
    Fault(name="sends something that is not HTTP", play=says(b"segmentation fault\n\n"), seen=False),
    Fault(name="reports that it is loading", play=says(LOADING), seen=False),
    Fault(name="closes after the head", play=dies_after(0), seen=False),
    Fault(name="closes in the middle of a whole answer", play=says(HALF_WHOLE), seen=False),
    Fault(name="closes in the middle of the first event", play=dies_after(0, half=True), seen=False),
    Fault(name="closes after the first event", play=dies_after(1), seen=True),
    Fault(name="closes after some words", play=dies_saying(2), seen=True),
    Fault(name="closes in the middle of a word", play=dies_saying(2, half=True), seen=True),
    Fault(name="closes after the last word", play=dies_saying(5), seen=True),
    Fault(name="ends the stream cleanly, too early", play=dies_saying(2, clean=True), seen=True),
)


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A point at which a client disconnects. `events`: how many it has received; None: no engine was asked."""

    name: str
    events: int | None
    then: str


LEAVINGS = (
    Leaving(name="while it sends its request", events=None, then="no engine is asked"),
    Leaving(name="while its request waits for a slot", events=None, then="removed from the queue, no engine is asked"),
    Leaving(name="before the first event", events=0, then="cancelled, the slot is freed"),
    Leaving(name="after the first event", events=1, then="cancelled, the slot is freed"),
    Leaving(name="in the middle of the answer", events=3, then="cancelled, the slot is freed"),
)
APIS = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "native": "/completion",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


CALLING = ("chat", "messages", "responses")  # APIs with tools


def sees(fault: Fault, *, stream: bool, other: bool) -> str:
    """What a client sees: "answer", "continued answer" or "error". `other`: another instance is available."""
    if not other:
        return "error"
    return "continued answer" if stream and fault.seen else "answer"


def table() -> str:
    """The faults as a table in Markdown."""
    rows = [
        "| the engine | whole answer | stream, all APIs | stream, a tool call in progress "
        "| no other instance available |",
        "|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        whole, streamed = sees(fault, stream=False, other=True), sees(fault, stream=True, other=True)
        call = streamed.replace("continued answer", "continued call")
        rows.append(f"| {fault.name} | {whole} | {streamed} | {call} | {sees(fault, stream=True, other=False)} |")
    rows += ["", "| the client disconnects | its request, for a whole answer or a stream |", "|---|---|"]
    rows += [f"| {leaving.name} | {leaving.then} |" for leaving in LEAVINGS]
    return "\n".join(rows)


def page_with_table(text: str) -> str:
    """`text` of the page with the current table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"
