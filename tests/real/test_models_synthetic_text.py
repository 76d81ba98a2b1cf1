"""The tiny models say what they should, through the real llama-server."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.models.synthetic import ANSWERS, ensure

pytestmark = pytest.mark.real

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contextmanager
def server(llama_bin: Path, model: Path, eventually: Callable[..., None], *flags: str) -> Iterator[httpx.Client]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    argv = [llama_bin / "llama-server", "-m", model, "--port", str(port), "-c", "4096", "-np", "2", "-t", "1", *flags]
    with (
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            eventually(lambda: is_ready(client, child), within_s=60)
            yield client
        finally:
            child.kill()


def is_ready(client: httpx.Client, child: subprocess.Popen[bytes]) -> bool:
    assert child.poll() is None, f"llama-server ended with {child.returncode}"
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def ask(client: httpx.Client, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    body = {"messages": messages, "max_tokens": 80, **more}
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("kind", "quant", "flags"),
    [
        ("moe", "Q8_0", ()),
        ("moe", "Q4_0", ("-ctk", "q8_0", "-ctv", "q8_0")),
        ("dense", "Q8_0", ()),
        ("dense", "F16", ("-fa", "off")),
        ("super", "Q8_0", ("--spec-type", "draft-mtp")),
    ],
)
def test_a_tiny_model_says_its_sentences(
    llama_bin: Path, tmp_path: Path, eventually: Callable[..., None], kind: str, quant: str, flags: tuple[str, ...]
) -> None:
    with server(llama_bin, ensure(kind, tmp_path, quant=quant), eventually, *flags) as client:
        for prompt, (reasoning, content) in ANSWERS.items():
            for temperature in (0, 1):
                message = ask(client, user(prompt), temperature=temperature)["message"]
                assert (message["reasoning_content"], message["content"]) == (reasoning, content)
        call = ask(client, user("How is the weather in Oslo?"), tools=[TOOL])
        assert call["finish_reason"] == "tool_calls"
        function = call["message"]["tool_calls"][0]["function"]
        assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Oslo"})
        result = {"role": "tool", "tool_call_id": call["message"]["tool_calls"][0]["id"], "content": "sunny"}
        after = ask(client, [*user("How is the weather in Oslo?"), call["message"], result], tools=[TOOL])
        assert after["message"]["content"] == "It is sunny in Oslo."
        endless = ask(client, user("please tick forever"), max_tokens=20)
        assert endless["finish_reason"] == "length"
        assert "tick tock tick" in endless["message"]["content"]
