"""What can go wrong between gateway and engine, and what a client sees: shared by the tests and the docs' table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.gateway_engine import LOADING, Play, dies_after, says

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "gateway.md"
BEGIN, END = "<!-- faults: generated, see tests/gateway_faults.py -->", "<!-- /faults -->"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail. `seen` says whether the client has got a part of the stream by then."""

    name: str
    play: Play | None  # None: nobody listens
    seen: bool


HALF_WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"choices":[{'

FAULTS = (
    Fault(name="nobody listens on its socket", play=None, seen=False),
    Fault(name="closes without an answer", play=says(b""), seen=False),
    Fault(name="closes in the middle of the head", play=says(b"HTTP/1.1 200 OK\r\nContent-Ty"), seen=False),
    Fault(name="answers something that is not HTTP", play=says(b"segmentation fault\n\n"), seen=False),
    Fault(name="says that it is still loading", play=says(LOADING), seen=False),
    Fault(name="closes after the head", play=dies_after(0), seen=False),
    Fault(name="closes in the middle of a whole answer", play=says(HALF_WHOLE), seen=False),
    Fault(name="closes in the middle of the first event", play=dies_after(0, half=True), seen=False),
    Fault(name="closes after some events", play=dies_after(3), seen=True),
    Fault(name="closes in the middle of an event", play=dies_after(3, half=True), seen=True),
    Fault(name="ends the stream regularly, too early", play=dies_after(3, clean=True), seen=True),
)
CONTINUED = ("chat", "completion", "native", "messages")
APIS = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "native": "/completion",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


def sees(fault: Fault, api: str, *, stream: bool, other: bool) -> str:
    """What a client sees: "answer", "continued answer" or "error"."""
    if not other:
        return "error"
    if not stream or not fault.seen:
        return "answer"
    return "continued answer" if api in CONTINUED else "error"


def table() -> str:
    """The faults as a table in Markdown."""
    rows = [
        "| the engine | client of a whole answer | chat, completion, messages stream | responses stream |",
        "|---|---|---|---|",
    ]
    for fault in FAULTS:
        cells = [
            sees(fault, "chat", stream=False, other=True), sees(fault, "chat", stream=True, other=True),
            sees(fault, "responses", stream=True, other=True),
        ]  # fmt: skip
        rows.append(f"| {fault.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def page_with_table(text: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
