"""A model that is right a known share of the time: it knows the solutions, and tosses a coin for each item. HTTP."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nemotron_ops.measure.quality.item import Answer, Call, Item

WRONG = Answer(content="perhaps 0.5", calls=(Call(name="no_such_tool", arguments="{}"),))


def is_lucky(item: Item, share: float, luck: str = "") -> bool:
    """Whether the oracle answers this item right."""
    return random.Random(f"{luck} {item.id}").random() < share


@contextmanager
def oracle(items: Mapping[str, Item], share: float, *, luck: str = "") -> Iterator[str]:
    """Serves until the end of the block; yields the base URL. `items` by prompt; `luck` seeds the coin."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            if body.get("stream"):  # the two requests that count tokens
                self._send(_stream(len(prompt.split())), "text/event-stream")
                return
            item = items[prompt]
            said = item.solution if is_lucky(item, share, luck) else WRONG
            self._send(json.dumps(_completion(said)).encode(), "application/json")

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def _completion(answer: Answer) -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in answer.calls]
    message = {"role": "assistant", "content": answer.content, "tool_calls": calls}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}


def _stream(tokens: int) -> bytes:
    events = [
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 1}},
    ]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"
