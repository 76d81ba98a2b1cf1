"""Streams whose llama-server dies under them: real clients put together the same answer as from one that lives."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from nemotron_ops.supervisor.snapshot import State
from tests.fakes.scripted_engine import Heard, read_request
from tests.fakes.stream_reader import put_together
from tests.stages.gateway import Stage, open_request, real_gateway

pytestmark = pytest.mark.real

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
JSON = [{"role": "user", "content": "Answer in JSON please"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather of a city", "parameters": CITY}
CHAT_TOOL = {"type": "function", "function": TOOL}
RESPONSES_TOOL = {"type": "function", **TOOL}
CLAUDES_TOOL = {"name": "get_weather", "description": "w", "input_schema": CITY}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    with real_gateway(tmp_path_factory.mktemp("real"), llama_bin) as found:
        yield found


@pytest.fixture(scope="module")
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="sk-no-key-required", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def claude(stage: Stage) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stage.url, api_key="sk-no-key-required", max_retries=0) as found:
        yield found


class Dying(threading.Thread):
    """Stands before a real llama-server and closes a connection after some events of its stream."""

    def __init__(self, path: Path, real: Path, events: int, last_act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.real, self.events, self.last_act = real, events, last_act
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()

    def run(self) -> None:
        while not self.dies():
            pass

    def dies(self) -> bool:
        """Serve one connection; a question for the template is answered, and the next request dies."""
        s, _ = self.server.accept()
        with s, socket.socket(socket.AF_UNIX) as engine:
            request = read_request(s)
            assert request is not None
            engine.connect(str(self.real))
            template = request.path == "/apply-template"
            head = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items())
            close = "Connection: close\r\n" if template else ""
            engine.sendall(f"POST {request.path} HTTP/1.1\r\n{close}{head}\r\n".encode() + request.body)
            seen = b""
            while (template or seen.count(b"data: ") < self.events) and (part := engine.recv(100)):
                seen += part
                s.sendall(part)
            if not template:
                self.last_act()
            return not template


class Overhearing(threading.Thread):
    """Stands before a real llama-server, remembers what it is asked, and passes everything on."""

    def __init__(self, path: Path, real: Path) -> None:
        super().__init__(daemon=True)
        self.real = real
        self.heard: list[Heard] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.server.accept()
                with s, socket.socket(socket.AF_UNIX) as engine:
                    request = read_request(s)
                    assert request is not None
                    self.heard.append(request)
                    engine.connect(str(self.real))
                    head = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items())
                    engine.sendall(f"POST {request.path} HTTP/1.1\r\nConnection: close\r\n{head}\r\n".encode())
                    engine.sendall(request.body)
                    while part := engine.recv(65536):
                        s.sendall(part)


@contextlib.contextmanager
def dying(stage: Stage, folder: Path, events: int, last_act: Callable[[], object] = lambda: None) -> Iterator[None]:
    """The next stream is cut off after some events, by the death of one of two instances."""
    (engine,) = stage.engines
    thread = Dying(folder / "d.sock", engine.socket, events, last_act)
    thread.start()
    one = engine.view(name="tiny-dying", socket=str(folder / "d.sock"))
    other = engine.view(pid=stage.control.snapshot.serial)  # a new process, to which no conversation belongs
    stage.control.show(instances=(one, other))
    stage.settle()
    try:
        yield
        thread.join(timeout=10)
        assert not thread.is_alive(), "the fault did not happen"
    finally:
        thread.server.close()
        stage.control.show(instances=(engine.view(),))
        stage.settle()


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": CAPITAL, "stream_options": {"include_usage": True}}),
    "chat, no thinking": ("/v1/chat/completions", {"messages": CAPITAL, "reasoning_effort": "none"}),
    "chat, tool call": ("/v1/chat/completions", {"messages": WEATHER, "tools": [CHAT_TOOL]}),
    "chat, tool required": (
        "/v1/chat/completions",
        {"messages": WEATHER, "tools": [CHAT_TOOL], "tool_choice": "required"},
    ),
    "chat, JSON": ("/v1/chat/completions", {"messages": JSON, "response_format": {"type": "json_object"}}),
    "responses": ("/v1/responses", {"input": "What is the capital of France?"}),
    "responses, tool call": ("/v1/responses", {"input": WEATHER, "tools": [RESPONSES_TOOL]}),
    "messages": ("/v1/messages", {"messages": CAPITAL, "max_tokens": 100}),
    "messages, tool call": ("/v1/messages", {"messages": WEATHER, "max_tokens": 100, "tools": [CLAUDES_TOOL]}),
    "completion": ("/v1/completions", {"prompt": "Hello", "max_tokens": 12}),
    "native": ("/completion", {"prompt": "What is 2 + 2?", "n_predict": 12}),  # whose words are not its tokenizer's
}
# The last word after which a stream is cut. In JSON, " 4" is one word to the model and two to its tokenizer.
LENGTHS = {"chat, no thinking": 8, "completion": 7, "native": 7, "chat, JSON": 8}


EVENTS = (1, 3, 6, 8, 10, 12)
LAST_WORD = {"chat": 14, "responses": 14, "messages": 16}


@pytest.mark.parametrize(
    ("kind", "events"), [*((kind, events) for kind in KINDS for events in EVENTS), *LAST_WORD.items()]
)
def test_every_stream_is_continued_word_for_word(stage: Stage, tmp_path: Path, kind: str, events: int) -> None:
    path, body = KINDS[kind]
    body = {"model": "org/tiny", "stream": True, "temperature": 0, **body}

    def ask() -> list[Any]:
        with open_request(stage, path, body) as answer:
            raw = answer.rest()
        assert not answer.broken, raw
        return put_together(raw)

    expected = ask()
    with dying(stage, tmp_path, min(events, LENGTHS.get(kind, events))):
        assert ask() == expected


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_tokens_are_those_of_the_whole_answer(stage: Stage, tmp_path: Path, kind: str) -> None:
    path, body = KINDS[kind]

    def tokens() -> int:
        with open_request(stage, path, {"model": "tiny", "stream": True, "temperature": 0, **body}) as answer:
            raw = answer.rest()
        return int(re.findall(rb'"(?:completion|output)_tokens":(\d+)', raw)[-1])

    expected = tokens()
    with dying(stage, tmp_path, 8):
        assert abs(tokens() - expected) <= 2  # those without text of their own are not counted again


@pytest.mark.parametrize("kind", ["chat, tool call", "responses, tool call", "messages, tool call"])
def test_a_call_that_was_half_written_goes_on_from_there(stage: Stage, tmp_path: Path, kind: str) -> None:
    path, body = KINDS[kind]
    body = {"model": "tiny", "stream": True, "temperature": 0, **body}

    def ask() -> list[Any]:
        with open_request(stage, path, body) as answer:
            raw = answer.rest()
        assert not answer.broken, raw
        return put_together(raw)

    expected = ask()
    (engine,) = stage.engines
    # what the engine is asked: Dying counts its events, not those that the client gets for them
    asked = KINDS["chat, tool call"] if kind.startswith("responses") else KINDS[kind]
    spoken = (asked[0], {**body, **asked[1]})
    with open_request(stage, *spoken) as answer:
        answer.until(b"Oslo")
        up_to_text = answer.data[: answer.data.index(b"Oslo")].count(b"data: ")
    overhearing = Overhearing(tmp_path / "o.sock", engine.socket)
    overhearing.start()
    dead = Dying(tmp_path / "d.sock", engine.socket, up_to_text + 1, lambda: None)
    dead.start()
    one = engine.view(name="tiny-dying", socket=str(tmp_path / "d.sock"))
    other = engine.view(name="tiny-other", socket=str(tmp_path / "o.sock"))
    stage.control.show(instances=(one, other))
    stage.settle()
    try:
        assert ask() == expected
    finally:
        overhearing.server.close()
        dead.server.close()
        stage.control.show(instances=(engine.view(pid=stage.control.snapshot.serial),))
        stage.settle()
    assert [heard.path for heard in overhearing.heard] == ["/apply-template", spoken[0]]
    assert "<function=get_weather>\\n<parameter=city>\\nOslo" in overhearing.heard[1].body.decode()


# kill -9


class Killed:
    """A llama-server that gets SIGKILL in the middle of a stream and is started again, as a supervisor would."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        (self.engine,) = stage.engines
        self.stage, self.folder = stage, folder

    @contextlib.contextmanager
    def after(self, events: int) -> Iterator[None]:
        engine, control = self.engine, self.stage.control

        def die() -> None:
            engine.kill()
            control.change("tiny-0", state=State.BACKOFF)
            engine.start()
            control.show(instances=(engine.view(),))

        path = self.folder / f"{events}.sock"
        thread = Dying(path, engine.socket, events, die)
        thread.start()
        control.show(instances=(engine.view(socket=str(path), pid=control.snapshot.serial),))
        self.stage.settle()
        yield
        thread.join(timeout=30)
        assert not thread.is_alive(), "the fault did not happen"
        thread.server.close()


@pytest.fixture
def killed(stage: Stage, tmp_path: Path) -> Killed:
    return Killed(stage, tmp_path)


def test_openais_client_reads_a_response_whose_engine_was_killed(client: openai.OpenAI, killed: Killed) -> None:
    def ask() -> tuple[str, Any]:
        events = list(client.responses.create(model="tiny", input="What is the capital of France?", stream=True))
        assert events[-1].type == "response.completed"
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert {e.response.id for e in events if hasattr(e, "response")} == {events[-1].response.id}
        assert events[-1].response.output_text == said
        return said, [item.type for item in events[-1].response.output]

    expected = ask()
    assert expected == ("Paris is the capital of France.", ["reasoning", "message"])
    with killed.after(12):
        assert ask() == expected


def test_openais_client_reads_a_responses_call_whose_engine_was_killed(client: openai.OpenAI, killed: Killed) -> None:
    tools: Any = [RESPONSES_TOOL]
    with killed.after(9):
        events = list(client.responses.create(model="tiny", input=WEATHER, tools=tools, stream=True))  # type: ignore[arg-type]
    arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert events[-1].type == "response.completed"
    (call,) = [item for item in events[-1].response.output if item.type == "function_call"]
    assert (call.name, call.arguments) == ("get_weather", arguments)
    assert json.loads(arguments) == {"city": "Oslo"}
    (added,) = [e.item for e in events if e.type == "response.output_item.added" and e.item.type == "function_call"]
    assert (added.id, added.call_id) == (call.id, call.call_id)


def test_openais_client_reads_a_chats_call_whose_engine_was_killed(client: openai.OpenAI, killed: Killed) -> None:
    with (
        killed.after(8),
        client.chat.completions.stream(model="tiny", messages=WEATHER, tools=[CHAT_TOOL]) as stream,  # type: ignore[arg-type,list-item]
    ):
        (choice,) = stream.get_final_completion().choices
    (call,) = choice.message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    assert choice.finish_reason == "tool_calls"


def test_anthropics_client_reads_a_call_whose_engine_was_killed(claude: anthropic.Anthropic, killed: Killed) -> None:
    tool: Any = CLAUDES_TOOL
    with (
        killed.after(9),
        claude.messages.stream(model="tiny", max_tokens=100, messages=WEATHER, tools=[tool]) as stream,  # type: ignore[arg-type]
    ):
        message = stream.get_final_message()
    (use,) = [b for b in message.content if b.type == "tool_use"]
    assert (use.name, use.input, message.stop_reason) == ("get_weather", {"city": "Oslo"}, "tool_use")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Count forever."}], "max_tokens": 900}),
        ("/v1/responses", {"input": "Count forever.", "max_output_tokens": 900}),
    ],
    ids=["chat", "responses"],
)
def test_a_long_stream_survives_the_death_of_its_engine(stage: Stage, path: str, body: dict[str, Any]) -> None:
    (engine,) = stage.engines
    with open_request(stage, path, {"model": "tiny", "stream": True, "ignore_eos": True, **body}) as answer:
        answer.until(b" tick")
        engine.kill()
        stage.control.change("tiny-0", state=State.BACKOFF)
        engine.start()
        stage.control.show(instances=(engine.view(),))
        raw = answer.rest()
    assert not answer.broken
    said = put_together(raw)
    if path == "/v1/responses":
        whole = "".join(e["delta"] for e in said if e["type"] == "response.output_text.delta")
        assert said[-1]["type"] == "response.incomplete"
        assert said[-1]["response"]["output"][-1]["content"][0]["text"] == whole
    else:
        whole = next(e["choices"][0]["delta"]["content"] for e in said if e["choices"][0]["delta"].get("content"))
        assert said[-2]["choices"][0]["finish_reason"] == "length"
    assert f" {whole}".replace(" tick tock", "") in ("", " tick")
