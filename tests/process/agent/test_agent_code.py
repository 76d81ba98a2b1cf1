"""Code of a model through gateway, agent and a real sandbox, with the real `openai` package. Costs about 10 s."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import STREAM_HEAD, Heard, ScriptedEngine, chunk, events
from tests.stages.agent import start_agent
from tests.stages.gateway import Stage, gateway

pytestmark = pytest.mark.process
TOOL: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
END = b"data: [DONE]\n\n"
SLEEPS = "import time; time.sleep(600)"


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    body = {"id": "c", "object": "chat.completion.chunk", "model": "engine", "created": 1, "choices": [choice]}
    return b"data: " + json.dumps(body | ({"usage": usage} if finish else {})).encode() + b"\n\n"


def calls(name: str, arguments: dict[str, Any]) -> list[bytes]:
    """A turn that calls one function."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": f"call{os.urandom(4).hex()}", "type": "function", "function": function}
    return [event({"role": "assistant", "tool_calls": [call]}), event({}, "tool_calls"), END]


def play(s: socket.socket, request: Heard) -> None:
    """Says what the last user message asks for: `run CODE`, then words about the result; `loop` calls without end."""
    messages = request.json["messages"]
    asked = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    results = [m["content"] for m in messages if m["role"] == "tool"]
    if asked == "loop":
        said = calls("code_interpreter", {"code": f"print({len(results)})"})
    elif asked == "own":
        said = calls("get_weather", {"city": "Oslo"})
    elif not results:
        said = calls("code_interpreter", {"code": asked.removeprefix("run ")})
    elif asked == "run twice = 1" and len(results) == 1:
        said = calls("code_interpreter", {"code": "print(twice + 1)"})
    else:
        said = events("chat", ("It says ", results[-1].strip(), "."))
    s.sendall(STREAM_HEAD + b"".join(map(chunk, said)) + chunk(b""))


@dataclass
class Served:
    """A gateway with an agent and keys."""

    stage: Stage
    agent: subprocess.Popen[bytes]
    home: Path
    tools_key: str
    plain_key: str
    engine: ScriptedEngine

    def client(self, key: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.stage.url}/v1", api_key=key or self.tools_key, max_retries=0, timeout=60)

    def ask(self, text: str, **more: Any) -> Any:
        return self.client().responses.create(model="m", **{"input": text, "tools": [TOOL], **more})

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.agent.pid).children(recursive=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("agent")
    home = folder / "home"
    (home / "config").mkdir(parents=True)
    (home / "config" / "tools.json").write_text('{"enabled": ["python"]}')
    keys = folder / "keys.json"
    scopes = (Scope.INFERENCE, Scope.METRICS)
    plain = keystore.create(keys, Key(id="", sha256="", name="plain", scopes=scopes))[1]
    able = keystore.create(keys, Key(id="", sha256="", name="able", scopes=(*scopes, Scope.TOOLS)))[1]
    engine = ScriptedEngine(name="m-0", path=folder / "e.sock", play=play).start()
    flags = ("--api-keys-file", str(keys), "--agent-socket", str(folder / "agent.sock"))
    with gateway(folder, *flags) as stage:
        stage.control.show(models=(ModelView(name="m", names=("m",)),), instances=(engine.view(),))
        stage.settle(plain)
        agent = start_agent(folder, f"{stage.url}/v1", home)
        found = Served(stage=stage, agent=agent, home=home, tools_key=able, plain_key=plain, engine=engine)
        yield found
        found.agent.kill()
        found.agent.wait()
        assert "Traceback" not in (folder / "agent.log").read_text()
    engine.stop()


def test_an_answer_runs_code_and_says_its_result(served: Served) -> None:
    got = served.ask("run print(6 * 7)", include=["code_interpreter_call.outputs"])
    assert (got.status, got.output_text) == ("completed", "It says 42.")
    call = next(item for item in got.output if item.type == "code_interpreter_call")
    assert (call.code, call.status, call.outputs[0].logs) == ("print(6 * 7)", "completed", "42")
    assert not any(item.type == "function_call" for item in got.output)
    assert got.usage.total_tokens > 10
    assert got.tools[0].type == "code_interpreter"


def test_a_stream_has_the_events_of_a_code_interpreter(served: Served) -> None:
    kinds, text = [], ""
    for event_ in served.ask("run print(5)", stream=True):
        kinds.append(event_.type)
        text += event_.delta if event_.type == "response.output_text.delta" else ""
    assert text == "It says 5."
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    run = [k for k in kinds if "code_interpreter" in k]
    assert run == [
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
    ]
    assert not any("function_call" in k for k in kinds)


def test_variables_stay_within_an_answer(served: Served) -> None:
    assert served.ask("run twice = 1").output_text == "It says 2."


def test_an_answer_can_be_sent_back_as_input(served: Served) -> None:
    first = served.ask("run print(3)")
    again: Any = [{"role": "user", "content": "run print(3)"}, *(i.model_dump() for i in first.output)]
    assert served.ask("", input=[*again, {"role": "user", "content": "and?"}]).status == "completed"


def test_an_error_of_the_code_is_told_to_the_model(served: Served) -> None:
    assert "ZeroDivisionError" in served.ask("run 1 / 0").output_text


def test_a_budget_that_ends_is_incomplete(served: Served) -> None:
    got = served.ask("loop", max_tool_calls=2)
    assert (got.status, got.incomplete_details.reason) == ("incomplete", "max_tool_calls")


def test_calls_of_the_clients_own_functions_end_the_loop(served: Served) -> None:
    own: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    got = served.ask("own", tools=[TOOL, own])
    assert [(i.type, i.name) for i in got.output] == [("function_call", "get_weather")]


def test_a_key_without_the_scope_is_refused(served: Served) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="lacks the scope 'tools'"):
        served.client(served.plain_key).responses.create(model="m", input="run 1", tools=[TOOL])


@pytest.mark.parametrize("kind", ["image_generation", "file_search"])
def test_other_hosted_tools_are_still_refused(served: Served, kind: str) -> None:
    with pytest.raises(openai.BadRequestError, match="runs at the server and is not enabled"):
        served.ask("x", tools=[TOOL, {"type": kind}])


def test_a_tool_that_is_disabled_is_refused(served: Served) -> None:
    path = served.home / "config" / "tools.json"
    before = path.read_text()
    path.write_text('{"enabled": []}')
    try:
        with pytest.raises(openai.BadRequestError, match="not enabled here"):
            served.ask("run 1")
    finally:
        path.write_text(before)


def test_requests_without_hosted_tools_do_not_reach_the_agent(served: Served) -> None:
    served.agent.send_signal(signal.SIGSTOP)
    try:
        own: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
        assert served.ask("own", tools=[own]).output[0].name == "get_weather"
    finally:
        served.agent.send_signal(signal.SIGCONT)


def asleep(served: Served) -> Callable[[], bool]:
    return lambda: len(served.children()) > 1


def test_a_client_that_leaves_ends_the_sandbox(served: Served, eventually: Callable[..., None]) -> None:
    body = {"model": "m", "input": f"run {SLEEPS}", "tools": [TOOL], "stream": True}
    headers = {"Authorization": f"Bearer {served.tools_key}"}
    with httpx.stream("POST", f"{served.stage.url}/v1/responses", json=body, headers=headers, timeout=30) as answer:
        next(line for line in answer.iter_lines() if "interpreting" in line)
        eventually(asleep(served))
    eventually(lambda: not served.children())


def test_an_agent_that_is_killed_is_no_finished_answer_and_leaves_no_process(
    served: Served, eventually: Callable[..., None]
) -> None:
    left: list[psutil.Process] = []
    seen = []

    def follow() -> None:
        for event_ in served.ask(f"run {SLEEPS}", stream=True):
            seen.append(event_.type)
            if event_.type == "response.code_interpreter_call.interpreting":
                eventually(asleep(served))
                left.extend(served.children())
                served.agent.kill()
                served.agent.wait()

    with pytest.raises((openai.APIError, httpx.HTTPError)):
        follow()
    assert left
    assert "response.completed" not in seen
    eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in left))
    served.agent = start_agent(served.stage.folder, f"{served.stage.url}/v1", served.home)
    assert served.ask("run print(1)").output_text == "It says 1."
