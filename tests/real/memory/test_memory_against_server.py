"""The memory plan against the logs of the real llama-server and llama-fit-params."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.memory.log import compare, logged_buffers, projected_mib
from nemotron_ops.memory.model import MIB, estimate, settings_from
from nemotron_ops.memory.model_shape import PLAIN
from nemotron_ops.models.local import read_header
from nemotron_ops.models.synthetic import ensure
from tests.fakes.shapes import TRANSFORMERS, sparse, sparse_transformer

pytestmark = pytest.mark.real

FLAGS = {
    "ctx_size": "-c",
    "parallel": "-np",
    "cache_type_k": "-ctk",
    "cache_type_v": "-ctv",
    "ubatch_size": "-ub",
    "flash_attn": "-fa",
    "spec_type": "--spec-type",
}
GRID: list[dict[str, Any]] = [
    {"ctx_size": 2048, "parallel": 1},
    {"ctx_size": 9000},
    {"ctx_size": 20000, "parallel": 3},
    {"ctx_size": 20000, "parallel": 3, "kv_unified": True},
    {"ctx_size": 70000, "parallel": 1, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    {"ctx_size": 8192, "parallel": 4, "kv_unified": True, "cache_type_k": "q4_0", "cache_type_v": "f16"},
    {"ctx_size": 8192, "parallel": 2, "ubatch_size": 128},
    {"ctx_size": 8192, "parallel": 1, "ubatch_size": 1024},
    {"ctx_size": 12000, "parallel": 2, "flash_attn": "off"},
]


def log_of(llama_bin: Path, model: Path, server: dict[str, Any], *, until: str) -> list[str]:
    """llama-server's log up to the first line with `until`; the server is killed there.

    Without repacking, as llama-server's own projection leaves repacked weights out (common/fit.cpp counts host
    buffers only).
    """
    flags = [word for key, value in server.items() if key in FLAGS for word in (FLAGS[key], str(value))]
    flags += ["-kvu"] if server.get("kv_unified") else []
    argv = [f"{llama_bin}/llama-server", "-m", f"{model}", "--port", "0", "-lv", "4", "--no-repack", "-t", "1", *flags]
    lines: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            lines.append(line)
            if until in line:
                child.kill()
                return lines
    raise AssertionError(f"llama-server ended with {child.returncode}:\n{''.join(lines[-20:])}")


def check(llama_bin: Path, model: Path, server: dict[str, Any]) -> None:
    """KV, RS and output equal the log to its last digit; compute is within 15 %."""
    log = log_of(llama_bin, model, server, until="listening on")
    found = {c.kind: c for c in compare(estimate(read_header(model), settings_from(server)), log)}
    for kind in ("model", "KV", "RS", "output"):
        printed = sum(b.kind == kind for b in logged_buffers(log))  # each rounded to two digits
        assert abs(found[kind].predicted_mib - found[kind].logged_mib) <= 0.0051 * printed, (kind, server)
    assert found["compute"].ratio == pytest.approx(1, abs=0.15), server
    assert found["total"].logged_mib > 1


@pytest.mark.parametrize("server", GRID, ids=str)
@pytest.mark.parametrize("kind", ["moe", "dense"])
def test_every_buffer_of_the_tiny_models_is_predicted(
    llama_bin: Path, tmp_path: Path, kind: str, server: dict[str, Any]
) -> None:
    check(llama_bin, ensure(kind, tmp_path), server)


@pytest.mark.parametrize(
    "server",
    [
        {"ctx_size": 4096, "parallel": 1},
        {"ctx_size": 8192, "parallel": 2, "spec_type": "draft-mtp"},
        {"ctx_size": 8192, "parallel": 3, "kv_unified": True, "spec_type": "draft-mtp"},
    ],
    ids=str,
)
def test_latent_experts_and_mtp_are_predicted(llama_bin: Path, tmp_path: Path, server: dict[str, Any]) -> None:
    check(llama_bin, ensure("super", tmp_path), server)


@pytest.mark.parametrize(
    "server",
    [
        {"ctx_size": 16384, "parallel": 1},
        {"ctx_size": 262144, "parallel": 4, "kv_unified": True},
        {"ctx_size": 32768, "parallel": 2, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
        {"ctx_size": 1048576, "parallel": 1, "ubatch_size": 1024},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["4b", "30b", "120b"])
def test_true_sizes_are_within_a_hundredth_of_the_servers_own_projection(
    llama_bin: Path, tmp_path: Path, name: str, server: dict[str, Any]
) -> None:
    model = sparse(name, tmp_path)
    said = projected_mib(log_of(llama_bin, model, server, until="projected to use"))
    assert said is not None
    assert estimate(read_header(model), settings_from(server)).start_bytes / MIB == pytest.approx(said, rel=0.01)


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_ordinary_transformers_are_within_a_hundredth_too(llama_bin: Path, tmp_path: Path, name: str) -> None:
    model = sparse_transformer(name, tmp_path)
    for server in ({"ctx_size": 16384, "parallel": 1}, {"ctx_size": 32768, "parallel": 2, "flash_attn": "off"}):
        said = projected_mib(log_of(llama_bin, model, server, until="projected to use"))
        assert said is not None
        found = estimate(read_header(model), settings_from(server))
        assert found.start_bytes / MIB == pytest.approx(said, rel=0.01)


def test_every_architecture_the_plan_knows_is_measured() -> None:
    assert {t.arch for t in TRANSFORMERS.values()} == PLAIN


@pytest.mark.parametrize(("ctx_size", "parallel"), [(16384, 1), (262144, 4)])
def test_llama_fit_params_counts_the_same_weights_and_context(
    llama_bin: Path, tmp_path: Path, ctx_size: int, parallel: int
) -> None:
    model = sparse("30b", tmp_path, quant="BF16", shards=2)
    argv = [f"{llama_bin}/llama-fit-params", "-m", f"{model}", "-c", str(ctx_size), "-np", str(parallel), "-fitp", "on"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    host = next(line.split() for line in done.stdout.splitlines() if line.startswith("Host"))
    found = estimate(read_header(model), settings_from({"ctx_size": ctx_size, "parallel": parallel}))
    assert (found.weights // MIB, found.context // MIB) == (int(host[1]), int(host[2]))
