"""A scripted engine on a unix socket: speaks llama-server's protocol and fails where the test says. Sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.supervisor.snapshot import InstanceView, State

WORDS = ("The", " answer", " is", " four", ".")
TEXT_OF_WORDS = "".join(WORDS)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Heard:
    """One request that the engine received."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Play = Callable[[socket.socket, Heard], None]


@dataclass
class ScriptedEngine:
    """Handles each connection with `play`; `heard` lists the requests, `left` counts those that clients closed."""

    name: str
    path: Path
    play: Play
    heard: list[Heard] = field(default_factory=list)
    left: int = 0
    pid: int = 1
    slots: int = 2
    _server: socket.socket | None = None

    def start(self) -> ScriptedEngine:
        self.path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen(64)
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()

    def view(self, model: str = "m", **rest: Any) -> InstanceView:
        given = {"name": self.name, "model": model, "state": State.READY, "socket": str(self.path), "slots": self.slots}
        return InstanceView(**{**given, "api_key_file": "", "pid": self.pid, **rest})

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                s, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s: socket.socket) -> None:
        with contextlib.suppress(OSError), s:
            request = read_request(s)
            if request is None:
                return
            self.heard.append(request)
            try:
                self.play(s, request)
            except OSError:
                self.left += 1


def read_request(s: socket.socket) -> Heard | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = s.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += s.recv(65536)
    return Heard(path=lines[0].split(" ")[1], headers=headers, body=body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(
    api: str, words: tuple[str, ...] = WORDS, thoughts: tuple[str, ...] = (), given: tuple[str, str] = ("", "")
) -> list[bytes]:
    """A complete stream of `api` as llama-server writes it, one item per event.

    `given` are the reasoning and the words of the request's own partial answer; `responses` repeats them at its end.
    """
    if api == "chat":
        parts = [*(_chat({"reasoning_content": t}) for t in thoughts), *(_chat({"content": w}) for w in words)]
        start, end = _chat({"role": "assistant", "content": None}), _chat({}, "stop", usage=True)
        return [start, *parts, end, b"data: [DONE]\n\n"]
    if api == "completion":
        parts = [
            _data({"choices": [{"text": w, "index": 0, "logprobs": None, "finish_reason": None}], **_TOP})
            for w in words
        ]
        last = {
            "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}],
            **_TOP,
            "usage": _USAGE,
        }
        return [*parts, _data(last), b"data: [DONE]\n\n"]
    if api == "native":
        parts = [_data({"index": 0, "content": w, "tokens": [1], "stop": False, "model": "engine"}) for w in words]
        last = {"index": 0, "content": "", "tokens": [], "stop": True, "model": "engine", "tokens_predicted": 5}
        return [*parts, _data(last)]
    if api == "messages":
        thinking = _block(0, {"type": "thinking", "thinking": ""}, "thinking", thoughts) if thoughts else []
        text = _block(1 if thoughts else 0, {"type": "text", "text": ""}, "text", words) if words else []
        return _messages([*thinking, *text], "end_turn")
    assert api == "responses"
    mind = _responses_item("reasoning", "rs", "response.reasoning_text.delta", thoughts, given[0])
    said = _responses_item("message", "msg", "response.output_text.delta", words, given[1])
    return _responses(mind, said)


def _block(index: int, start: dict[str, str], kind: str, parts: tuple[str, ...]) -> list[dict[str, Any]]:
    deltas = [_block_delta({"type": f"{kind}_delta", kind: part}, index) for part in parts]
    return [{"type": "content_block_start", "index": index, "content_block": start}, *deltas]


Item = tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]  # streamed, closing, final


def _responses_item(kind: str, prefix: str, delta: str, parts: tuple[str, ...], given: str) -> Item:
    """One output item of `responses`: its events while it streams, its closing events, its final form."""
    if not parts and not given:
        return [], [], []
    item = {"id": f"{prefix}_{next(_ids)}", "type": kind}
    at, text = {"item_id": item["id"]}, {"type": "output_text", "text": given + "".join(parts)}
    added = {"type": "response.output_item.added", "item": {"content": [], **item, "status": "in_progress"}}
    deltas = [{"type": delta, **at, "delta": part} for part in parts]
    whole = {"content": [text], **item}
    done = {"type": "response.output_item.done", "item": whole}
    if kind == "reasoning":
        return [added, *deltas] if parts else [], [done], [whole]
    part = {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": ""}}
    dones: list[dict[str, Any]] = [
        {"type": "response.output_text.done", **at, "text": text["text"]},
        {"type": "response.content_part.done", **at, "part": text},
    ]
    return [added, part, *deltas] if parts else [], [*dones, done], [whole]


CALL = ("{", '"city":"', "Oslo", '"', "}")


def call_events(api: str, arguments: tuple[str, ...] = CALL, name: str = "get_weather", given: str = "") -> list[bytes]:
    """A complete stream of `api` with one tool call; only the end of `responses` contains the `given` arguments."""
    new = next(_ids)
    if api == "chat":
        first = {"index": 0, "id": f"id{new}", "type": "function", "function": {"name": name}}
        parts = [{"index": 0, "function": {"arguments": part}} for part in arguments]
        calls = [_chat({"tool_calls": [part]}) for part in (first, *parts)]
        start = _chat({"role": "assistant", "content": None})
        return [start, *calls, _chat({}, "tool_calls", usage=True), b"data: [DONE]\n\n"]
    if api == "messages":
        use = {"type": "tool_use", "id": f"id{new}", "name": name}
        block = {"type": "content_block_start", "index": 0, "content_block": use}
        return _messages(
            [block, *(_block_delta({"type": "input_json_delta", "partial_json": part}, 0) for part in arguments)],
            "tool_use",
        )
    assert api == "responses"
    item = {"id": f"fc_{new}", "call_id": f"call_{new}", "name": name, "type": "function_call"}
    added = {"type": "response.output_item.added", "item": {**item, "arguments": "", "status": "in_progress"}}
    delta = {"type": "response.function_call_arguments.delta", "item_id": item["id"]}
    whole = {**item, "arguments": given + "".join(arguments), "status": "completed"}
    done = {"type": "response.output_item.done", "item": whole}
    return _responses(([added, *({**delta, "delta": part} for part in arguments)], [done], [whole]))


_ids = itertools.count(100_000)


def _block_delta(delta: dict[str, str], index: int) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _messages(parts: list[dict[str, Any]], reason: str) -> list[bytes]:
    usage = {"cache_read_input_tokens": 0, "input_tokens": 10, "output_tokens": 0}
    top = {"id": f"x{next(_ids)}", "type": "message", "role": "assistant", "content": [], "model": "engine"}
    start = {"type": "message_start", "message": {**top, "stop_reason": None, "usage": usage}}
    begun = [part for part in parts if part["type"] == "content_block_start"]
    stops = [{"type": "content_block_stop", "index": part["index"]} for part in begun]
    if any(part["content_block"]["type"] == "thinking" for part in begun):
        stops.insert(0, _block_delta({"type": "signature_delta", "signature": ""}, 0))
    delta = {"stop_reason": reason, "stop_sequence": None}
    end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}
    return [_event(v) for v in (start, *parts, *stops, end, {"type": "message_stop"})]


def _responses(*items: Item) -> list[bytes]:
    top: dict[str, Any] = {"id": f"resp_{next(_ids)}", "object": "response", "status": "in_progress"}
    start = [{"type": f"response.{t}", "response": top} for t in ("created", "in_progress")]
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    output = [whole for _, _, wholes in items for whole in wholes]
    whole = {**top, "created_at": 1, "status": "completed", "model": "engine", "output": output, "usage": usage}
    parts = [event for begins, _, _ in items for event in begins]
    done = [event for _, ends, _ in items for event in ends]
    return [_event(v) for v in (*start, *parts, *done, {"type": "response.completed", "response": whole})]


_TOP = {"created": 1, "model": "engine", "system_fingerprint": "b1", "object": "text_completion", "id": "chatcmpl-1"}
_USAGE = {"completion_tokens": 5, "prompt_tokens": 10, "total_tokens": 15}


def _chat(delta: dict[str, Any], finish: str | None = None, *, usage: bool = False) -> bytes:
    value: dict[str, Any] = {"choices": [{"finish_reason": finish, "index": 0, "delta": delta}], **_TOP}
    value["object"] = "chat.completion.chunk"
    return _data({**value, "usage": _USAGE} if usage else value)


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def pass_on(relay: Relay, data: bytes) -> None:
    """Give `relay` bytes the way an upstream connection does: whole events as tokens where it takes them."""
    if not (data.endswith(b"\n\n") and relay.token(data)):
        relay.feed(data)


def _event(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + _data(value)


def api_of(request: Heard) -> str:
    return {
        "/v1/chat/completions": "chat",
        "/v1/completions": "completion",
        "/completion": "native",
        "/v1/messages": "messages",
        "/v1/responses": "responses",
    }.get(request.path, "chat")


# plays


def well(s: socket.socket, request: Heard) -> None:
    """Answers the request; continues a partial answer."""
    if request.path in ("/tokenize", "/v1/messages/count_tokens"):
        body = b'{"tokens":[1,2,3]}'
        s.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        return
    s.sendall(STREAM_HEAD + b"".join(map(chunk, answer_to(request))) + b"0\r\n\r\n")


def answer_to(request: Heard) -> list[bytes]:
    """The stream for a request: a tool call if the request has tools."""
    if "tools" in request.json:
        return call_events(api_of(request))
    rest = rest_of(request)
    return events(api_of(request), rest, given=("", "".join(WORDS[: len(WORDS) - len(rest)])))


def rest_of(request: Heard) -> tuple[str, ...]:
    """The words after those of the request's partial answer."""
    if request.path == "/v1/messages":
        return WORDS  # llama-server repeats the partial answer here
    body = request.json
    turns = body.get("messages", body.get("input"))
    last = turns[-1] if isinstance(turns, list) and turns else {}
    said = last.get("content", "") if last.get("role") == "assistant" else str(body.get("prompt", ""))
    said = said[0]["text"] if isinstance(said, list) else said
    for n in range(len(WORDS), 0, -1):
        if said.endswith("".join(WORDS[:n])):
            return WORDS[n:]
    return WORDS


HEADS = {"chat": 1, "messages": 2, "responses": 4}  # events before the first word


def dies_after(n: int, *, clean: bool = False, half: bool = False) -> Play:
    """Sends the head and `n` events, then closes; `clean` ends the body properly, `half` adds half an event."""

    def play(s: socket.socket, request: Heard) -> None:
        found = answer_to(request)
        s.sendall(STREAM_HEAD + b"".join(map(chunk, found[:n])))
        if half:
            s.sendall(chunk(found[n][: len(found[n]) // 2]))
        if clean:
            s.sendall(b"0\r\n\r\n")

    return play


def dies_saying(n: int, *, clean: bool = False, half: bool = False) -> Play:
    """Sends the head and events up to word `n`, then closes; flags as in `dies_after`."""

    def play(s: socket.socket, request: Heard) -> None:
        dies_after(HEADS.get(api_of(request), 0) + n, clean=clean, half=half)(s, request)

    return play


def hangs_after(n: int) -> Play:
    """Sends the head and `n` events, then nothing until the gateway closes."""

    def play(s: socket.socket, request: Heard) -> None:
        s.sendall(STREAM_HEAD + b"".join(map(chunk, events(api_of(request))[:n])))
        if not s.recv(1):
            raise ConnectionResetError

    return play


def pauses_after(n: int, go_on: threading.Event) -> Play:
    """Sends the head and `n` events, and the rest when `go_on` is set."""

    def play(s: socket.socket, request: Heard) -> None:
        found = events(api_of(request))
        s.sendall(STREAM_HEAD + b"".join(map(chunk, found[:n])))
        go_on.wait(timeout=60)
        s.sendall(b"".join(map(chunk, found[n:])) + b"0\r\n\r\n")

    return play


def keeps(answer: bytes) -> Play:
    """Answers each request of the connection with the whole `answer`."""

    def play(s: socket.socket, request: Heard) -> None:
        while True:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            s.sendall(head.encode() + answer)
            if read_request(s) is None:
                return

    return play


def only_thinks(s: socket.socket, request: Heard) -> None:
    """A chat response that ends after its reasoning, with no content."""
    found = [_chat({"role": "assistant", "content": None}), _chat({"reasoning_content": "Hm."}), _chat({}, "stop")]
    s.sendall(STREAM_HEAD + b"".join(map(chunk, [*found, b"data: [DONE]\n\n"])) + b"0\r\n\r\n")


def says(data: bytes) -> Play:
    """Sends `data` and closes."""

    def play(s: socket.socket, request: Heard) -> None:
        s.sendall(data)

    return play


def first_then(*plays: Play) -> Play:
    """Handles the first connection with the first play, the second with the second; the last play repeats."""
    left = list(plays)
    lock = threading.Lock()

    def play(s: socket.socket, request: Heard) -> None:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        chosen(s, request)

    return play


LOADING_BODY = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
LOADING = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(LOADING_BODY), LOADING_BODY)
)
