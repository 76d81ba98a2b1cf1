"""A supervisor stage with the real gateway and the real llama-server, and requests to it. Processes, HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from nemotron_ops.engine.args import server_argv
from nemotron_ops.policy import Health
from nemotron_ops.supervisor.spec import InstanceSpec
from tests.stages.supervisor import QUICK_RESTART, Stage

HEALTH = Health(probe_period_s=0.5, wedge_s=60.0, drain_s=30.0, stop_s=3.0)
SUM = [{"role": "user", "content": "What is 2 + 2?"}]
TICK = [{"role": "user", "content": "please tick forever"}]


class Serving(Stage):
    """A stage with the real gateway and the real llama-server."""

    def __init__(self, folder: Path, binary: Path, model: Path) -> None:
        super().__init__(folder)
        self.binary, self.model = binary, model
        self.settings["gateway"] = [sys.executable, "-m", "nemotron_ops.gateway"]

    def real(self, name: str, *, ctx_size: int = 4096, **fields: Any) -> InstanceSpec:
        argv = server_argv(
            binary=self.binary, model=self.model, socket="{socket}", api_key_file="{api_key_file}", alias=name,
            settings={"ctx_size": ctx_size, "parallel": 2, "cache_ram_mib": 0, "threads": 1},
            slot_save_path="{slots_dir}",
        )  # fmt: skip
        made = InstanceSpec(
            name=name, model=name.split("-")[0], argv=argv, slots=2, ctx_tokens=ctx_size // 2, files=(str(self.model),),
            restart=QUICK_RESTART, health=HEALTH,
        )  # fmt: skip
        return replace(made, **fields)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    def chat(self, model: str = "a", **fields: Any) -> dict[str, Any]:
        """One answer; fails unless its status is 200."""
        body = {"model": model, "messages": SUM, "temperature": 0, **fields}
        answer = httpx.post(self.url, json=body, timeout=120, trust_env=False)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stream(self, max_tokens: int) -> Iterator[str]:
        """The contents of a stream; fails unless it ends with `[DONE]`."""
        body = {"model": "a", "messages": TICK, "max_tokens": max_tokens, "stream": True, "temperature": 0}
        with httpx.stream("POST", self.url, json=body, timeout=120, trust_env=False) as answer:
            assert answer.status_code == 200
            lines = [""]
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    lines.append(line)
                if line.startswith("data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    yield delta.get("content") or delta.get("reasoning_content") or ""
            assert lines[-1] == "data: [DONE]"
