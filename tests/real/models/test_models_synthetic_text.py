"""The tiny models give their known answers through the real llama-server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from nemotron_ops.models.synthetic import ANSWERS, ensure
from nemotron_ops.models.synthetic.metadata import metadata
from nemotron_ops.models.synthetic.network import weights
from nemotron_ops.models.synthetic.residual import Array
from nemotron_ops.models.synthetic.scripts import script_vocabulary
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import chat_template, write_arrays, write_tiny
from tests.fakes.ports import free_port

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
    port = free_port()
    base = [f"{llama_bin}/llama-server", "-m", f"{model}", "--port", f"{port}"]
    argv = [*base, "-c", "4096", "-np", "2", "-t", "1", *flags]
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


def test_shards_behind_a_first_one_without_tensors_are_one_model(
    llama_bin: Path, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    first = write_tiny(MOE, tmp_path / "m.gguf", quant="F16", shards=3, metadata_first=True)[0]
    with server(llama_bin, first, eventually) as client:
        assert ask(client, user("What is 2 + 2?"))["message"]["content"] == "2 + 2 = 4."


def without(array: Array) -> None:
    array[:] = 0


def forgetful(dt_bias: Array) -> None:
    dt_bias[:] = 2.0  # the write gate is open for every token


def misled(router: Array) -> None:
    router[:] = np.roll(router, 1, axis=0)


@pytest.mark.parametrize(
    ("tensor", "spoil", "prompt", "tools"),
    [
        ("blk.0.ssm_out.weight", without, "What is 2 + 2?", False),
        ("blk.0.ssm_dt.bias", forgetful, "What is 2 + 2?", False),
        ("blk.0.ssm_conv1d.weight", without, "What is 2 + 2?", False),
        ("blk.5.attn_output.weight", without, "How is the weather in Oslo?", True),
        ("blk.5.attn_k.weight", without, "How is the weather in Oslo?", True),
        ("blk.6.ffn_gate_inp.weight", misled, "How is the weather in Oslo?", True),
        ("blk.6.ffn_down_exps.weight", without, "How is the weather in Oslo?", True),
    ],
    ids=lambda v: v if isinstance(v, str) and v.startswith("blk") else "",
)
def test_a_part_that_does_not_work_changes_the_text(
    llama_bin: Path, tmp_path: Path, eventually: Callable[..., None], tensor: str, spoil: Callable[[Array], None],
    prompt: str, tools: bool,
) -> None:  # fmt: skip
    vocab = script_vocabulary()
    arrays = weights(MOE, vocab, seed=3)
    spoil(arrays[tensor])
    pairs = metadata(MOE, vocab, name="spoilt", quant="Q8_0", template=chat_template())
    write_arrays(tmp_path / "spoilt.gguf", pairs, arrays, "Q8_0")
    with server(llama_bin, tmp_path / "spoilt.gguf", eventually) as client:
        choice = ask(client, user(prompt), **({"tools": [TOOL]} if tools else {}))
        right = choice["finish_reason"] == "tool_calls" if tools else choice["message"]["content"] == "2 + 2 = 4."
        assert not right


def test_a_tokenizer_that_splits_words_otherwise_changes_the_text(
    llama_bin: Path, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    vocab = script_vocabulary()
    pairs = metadata(MOE, vocab, name="spoilt", quant="Q8_0", template=chat_template())
    tokens = list(vocab.tokens)
    here, there = vocab.id(" capital"), vocab.id(" Oslo")
    tokens[here], tokens[there] = tokens[there], tokens[here]
    pairs["tokenizer.ggml.tokens"] = tokens
    write_arrays(tmp_path / "spoilt.gguf", pairs, weights(MOE, vocab, seed=3), "Q8_0")
    with server(llama_bin, tmp_path / "spoilt.gguf", eventually) as client:
        message = ask(client, user("What is the capital of France?"))["message"]
        assert message["content"] != "Paris is the capital of France."
