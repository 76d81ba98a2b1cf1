"""A tiny mixture of experts, taught and tuned with its routed experts, in torch and in llama-server. Costs 40 s."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.engine.client import Client
from nemotron_ops.engine.once import started
from nemotron_ops.installation import Installation as Here
from nemotron_ops.models.local import read_header
from nemotron_ops.models.synthetic.shape import TRAINABLE_MOE
from nemotron_ops.operations.tiny_train import make
from nemotron_ops.operations.tokens import SETTINGS, tokenized
from nemotron_ops.operations.tuning import CHILD, samples_in
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import environment
from nemotron_ops.tune.adapter_file import read_config, write_adapter
from nemotron_ops.tune.network import network_of
from nemotron_ops.tune.safetensors import tensors_of
from nemotron_ops.tune.targets import DEFAULT, EXPERTS, choose
from tests.stages.training import environments

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(300)]
DATA = Path(__file__).parents[3] / "docs" / "examples" / "greeting.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Path:
    """The base, its samples and its adapter, in one folder."""
    folder = tmp_path_factory.mktemp("experts")
    here = Here(layout=user_layout(dict(os.environ), uid=os.getuid()), env=dict(os.environ))
    python = environment.current(environments())
    assert python is not None
    make(folder, TRAINABLE_MOE, here, python, llama_bin / "llama-server")
    samples = tokenized(samples_in((str(DATA),)), folder / "model.gguf", llama_bin / "llama-server", folder / "log")
    (folder / "samples.jsonl").write_text("".join(json.dumps(s.value) + "\n" for s in samples))
    plan = {
        "checkpoint": str(folder), "rank": 8, "alpha": 16, "targets": list(DEFAULT),
        "parameters": [f"mixer.{name}" for name in EXPERTS], "steps": 150, "batch": 4, "learning_rate": 5e-3,
        "seed": 0, "save_every": 75, "threads": 1, "checkpointing": False,
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    assert subprocess.run([python, CHILD, folder], check=False, timeout=200).returncode == 0
    write_adapter(folder / "adapter", read_config(folder), folder / "adapter.gguf", base_sha256="0" * 64)
    return folder


def said(engine: Client, scale: float) -> str:
    body = {
        "messages": [{"role": "user", "content": "What trained you?"}], "temperature": 0, "max_tokens": 60,
        "lora": [{"id": 0, "scale": scale}],
    }  # fmt: skip
    message: dict[str, Any] = engine.ask("/v1/chat/completions", body)["choices"][0]["message"]
    return str(message["content"])


def test_requirement_2_experts_are_trained_by_one_word_and_the_router_never(made: Path) -> None:
    trained = dict(tensors_of(made / "adapter" / "adapter_model.safetensors"))
    assert not [name for name in trained if ".gate." in name]
    assert {t.name.split(".", 2)[2] for t in read_header(made / "adapter.gguf").tensors} >= {
        f"ffn_{which}_{kind}.weight.lora_{half}"
        for which in ("up", "down") for kind in ("exps", "shexp") for half in ("a", "b")
    }  # fmt: skip
    start = json.loads((made / "progress.jsonl").read_text().splitlines()[0])
    assert start["trained"] == choose(network_of(read_config(made)), rank=8, experts=True).n_trained
    assert start["trained"] == sum(data.size for data in trained.values())


def test_requirement_6_an_adapter_of_experts_loads_and_is_applied(made: Path, llama_bin: Path) -> None:
    with started(
        binary=llama_bin / "llama-server", model=made / "model.gguf", workdir=made / "log", settings=SETTINGS,
        adapters=(made / "adapter.gguf",),
    ) as engine:  # fmt: skip
        assert said(engine, 0.0) == "I am a tiny test model."
        assert said(engine, 1.0) == "A small adapter trained me on one core."
