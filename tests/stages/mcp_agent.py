"""A gateway, an agent and one MCP server in mcp.toml; an engine that calls what the user's message lists. Processes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import STREAM_HEAD, Heard, ScriptedEngine, chunk, events
from tests.stages.agent import start_agent
from tests.stages.gateway import Stage, gateway
from tests.stages.mcp_host import notes, written

NEVER: dict[str, Any] = {"type": "mcp", "server_label": "notes", "require_approval": "never"}


def calls(wanted: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    """A turn that calls functions."""
    listed = [
        {"index": n, "id": f"call{os.urandom(4).hex()}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(wanted)
    ]  # fmt: skip
    base = {"id": "c", "object": "chat.completion.chunk", "model": "engine", "created": 1}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    first = {**base, "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": listed}}]}
    last = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": usage}
    return [*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (first, last)), b"data: [DONE]\n\n"]


def play(s: socket.socket, request: Heard) -> None:
    """Calls what the last user message lists as JSON, one call a turn; then says the last result."""
    messages = request.json["messages"]
    place = max(n for n, m in enumerate(messages) if m["role"] == "user")
    wanted = json.loads(messages[place]["content"])
    results = [m["content"] for m in messages[place:] if m["role"] == "tool"]
    if len(results) < len(wanted):
        said = calls([tuple(wanted[len(results)])])
    else:
        said = events("chat", ("It says ", results[-1] if results else "nothing", "."))
    s.sendall(STREAM_HEAD + b"".join(map(chunk, said)) + chunk(b""))


@dataclass
class Served:
    """A gateway, an agent and mcp.toml with one server."""

    stage: Stage
    client: openai.OpenAI
    agent: subprocess.Popen[bytes]
    home: Path
    server: Path
    engine: ScriptedEngine

    def configure(self, *, pin: bool = True, **keys: Any) -> None:
        """Write mcp.toml anew, and confirm its tools."""
        written(self.home / "config", {"notes": notes(self.server, **keys)})
        if pin:
            argv = [sys.executable, "-m", "nemotron_ops", "tools", "mcp", "pin", "notes"]
            env = {**os.environ, "NEMOTRON_OPS_HOME": str(self.home)}
            subprocess.run(argv, env=env, capture_output=True, check=True)

    def ask(self, *wanted: tuple[str, dict[str, Any]], **more: Any) -> Any:
        given = {"input": json.dumps(wanted), "tools": [NEVER], **more}
        return self.client.responses.create(model="m", **given)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.agent.pid).children(recursive=True)


@contextlib.contextmanager
def mcp_agent(folder: Path, *, code_ok: tuple[int, ...] = (0,)) -> Iterator[Served]:
    """Start all of it in `folder`, which every user may enter then; a traceback of the agent fails the test."""
    folder.mkdir(exist_ok=True)
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    home = folder / "home"
    (home / "config").mkdir(parents=True)
    (home / "config" / "tools.json").write_text('{"enabled": ["python", "mcp"]}')
    keys = folder / "keys.json"
    scopes = (Scope.INFERENCE, Scope.METRICS, Scope.TOOLS)
    key = keystore.create(keys, Key(id="", sha256="", name="able", scopes=scopes))[1]
    engine = ScriptedEngine(name="m-0", path=folder / "e.sock", play=play).start()
    flags = ("--api-keys-file", str(keys), "--agent-socket", str(folder / "agent.sock"))
    with gateway(folder, *flags, code_ok=code_ok) as stage:
        stage.control.show(models=(ModelView(name="m", names=("m",)),), instances=(engine.view(),))
        stage.settle(key)
        agent = start_agent(folder, f"{stage.url}/v1", home)
        try:
            with openai.OpenAI(base_url=f"{stage.url}/v1", api_key=key, max_retries=0, timeout=60) as client:
                yield Served(
                    stage=stage, client=client, agent=agent, home=home, server=folder / "server", engine=engine
                )
        finally:
            agent.kill()
            agent.wait()
        assert "Traceback" not in (folder / "agent.log").read_text()
    engine.stop()
