"""Real clients, each with a tool over each API that it speaks: call, result, final answer, and a second question.

The clients are in an environment of their own (`install.sh`, exact versions); a real gateway and llama-server with the
tiny model are between them and the answers. Forty seconds, nearly all of it imports of the clients;
one process for each client, which does all of its APIs.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.clients.round_trips import CLIENTS
from tests.stages.gateway import Stage, real_gateway

pytestmark = pytest.mark.real
HERE = Path(__file__).parent
CALLS = [["get_weather", {"city": "Oslo"}]]
FINAL, SECOND = "It is sunny in Oslo.", "2 + 2 = 4."
SEVERAL_S = 240.0
PROVIDERS = (
    "openai, responses", "openai, responses, not stored", "openai, chat", "openai-compatible, chat",
    "anthropic, messages",
)  # fmt: skip
AI = [name for provider in PROVIDERS for name in (provider, f"{provider}, streamed")]
TRIPS = [*((client, api) for client, apis in CLIENTS.items() for api in apis), *(("ai", api) for api in AI)]
Results = Callable[[str], dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("clients")
    kept = ("--responses-folder", str(folder / "responses"))
    with real_gateway(folder, llama_bin, *kept, aliases=("claude-*", "gpt-*")) as found:
        yield found


@pytest.fixture(scope="module")
def results(stage: Stage, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each API of a client came to; a client runs once, when it is first asked for."""
    home = tmp_path_factory.mktemp("home")
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

    @functools.cache
    def run(client: str) -> dict[str, dict[str, Any]]:
        argv = [str(installed / "py/bin/python"), str(HERE / "round_trips.py"), client, stage.url]
        if client == "ai":
            (home / "node_modules").symlink_to(installed / "js/node_modules")
            (home / "round_trips.mjs").write_bytes((HERE / "round_trips.mjs").read_bytes())
            argv = ["node", str(home / "round_trips.mjs"), stage.url]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SEVERAL_S, env=env, cwd=home)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stderr[-3000:]
        return {found["api"]: found for found in map(json.loads, lines)}

    return run


@pytest.mark.parametrize(("client", "api"), TRIPS, ids=lambda v: v.replace(" ", "-"))
def test_a_client_runs_a_tool_and_asks_again(results: Results, client: str, api: str) -> None:
    found = results(client).get(api)
    assert found is not None, sorted(results(client))
    assert "error" not in found, found["error"]
    assert found["calls"] == CALLS
    assert found["final"] == FINAL
    assert found["second"] in (SECOND, "")  # some trips end with the first answer
