"""Builds, serves and measures on a machine with a GPU, in one command: `make bench-gpu`.

Builds llama.cpp for the GPU (the build's self-test runs on it), writes a Nemotron 3 Nano 30B-A3B of true shape with
random weights (18 GB as Q4_0), serves it with `nemotron-ops serve`, and prints a table for docs/explanation/builds.md:
times to build and to load, planned and used memory, tokens per second.

    python -m benchmarks.gpu --source llama.cpp.tar.gz     without a network
    python -m benchmarks.gpu --backend cpu --shape tiny    on any machine, as a test of this script
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from nemotron_ops import host
from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.installation import Installation
from nemotron_ops.models.local import read_header
from nemotron_ops.models.synthetic.shape import shape_of
from nemotron_ops.models.synthetic.write import write_sparse
from nemotron_ops.paths import user_layout
from nemotron_ops.proc import python_argv
from nemotron_ops.ui import Ui, duration, size
from tests.fakes.shapes import TRUE_SHAPES

CHUNK_BLOCKS = 1 << 20
Q4_0_BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # ggml-common.h: block_q4_0
PROMPT_TOKENS, ANSWER_TOKENS = 2048, 256


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--backend", default="cuda", choices=[b.value for b in Backend])
    ask.add_argument("--source", default="", help="as for `nemotron-ops build`")
    ask.add_argument("--shape", default="30b", choices=["tiny", *TRUE_SHAPES])
    ask.add_argument("--ctx-size", type=int, default=32768)
    ask.add_argument("--port", type=int, default=8001)
    given = ask.parse_args()
    with Ui() as ui, tempfile.TemporaryDirectory(prefix="nemotron-ops-gpu-") as folder:
        rows = run(given, ui, Path(folder))
        ui.data("\n".join(["| what | value |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]))


def run(given: argparse.Namespace, ui: Ui, folder: Path) -> list[tuple[str, str]]:
    """The rows of the table."""
    env = dict(os.environ)
    installation = Installation(layout=user_layout(env, uid=os.getuid()), env=env, report=ui.report)
    facts = installation.facts
    began = time.monotonic()
    request = BuildRequest(options=BuildOptions(backend=Backend(given.backend)), source=given.source)
    build = ensure_build(request, installation)
    built_s = time.monotonic() - began
    ui.end_bars()
    ui.say("writing random weights")
    model = random_model(given.shape, folder)
    rows = [
        ("GPU", ", ".join(g.name for g in facts.gpus) or "none"),
        ("driver, CUDA", f"{facts.driver_version or '-'}, {facts.driver_cuda or '-'}"),
        ("build", f"{build.id}, {duration(built_s)} (0 s: it was in the store)"),
        ("self-test", f"{len(build.manifest['selftest']['passed'])} checks on {build.manifest['selftest']['on']}"),
        ("model", f"{given.shape}, Q4_0, random weights, {size(model.stat().st_size)}"),
    ]
    rows += bench_rows(build.binary("llama-bench"), model)
    return rows + serve_rows(
        given, model, {**env, "NEMOTRON_OPS_STATE": f"{folder}/s", "NEMOTRON_OPS_RUNTIME": f"{folder}/r"}
    )


def random_model(name: str, folder: Path) -> Path:
    """A model of true shape with noise as weights: small values, so that nothing overflows; norms are one."""
    path = folder / f"{name}.gguf"
    shape = shape_of("moe") if name == "tiny" else TRUE_SHAPES[name]
    write_sparse(shape, path, quant="Q4_0", n_vocab=4096 if name == "tiny" else 131072)
    header, rng = read_header(path), np.random.default_rng(3)
    with path.open("r+b") as f:
        for tensor in header.tensors:
            f.seek(header.data_offset + tensor.offset)
            for piece in noise(tensor.name, tensor.type, tensor.n_bytes, rng):
                f.write(piece)
    return path


def noise(name: str, kind: str, n_bytes: int, rng: np.random.Generator) -> Iterator[bytes]:
    """The bytes of one tensor, in pieces."""
    if kind == "Q4_0":
        for left in range(n_bytes // Q4_0_BLOCK.itemsize, 0, -CHUNK_BLOCKS):
            blocks = np.zeros(min(left, CHUNK_BLOCKS), Q4_0_BLOCK)
            blocks["d"], blocks["qs"] = 0.004, rng.integers(0, 256, (len(blocks), 16), np.uint8)
            yield blocks.tobytes()
        return
    type_of = {"F32": np.float32, "F16": np.float16}[kind]
    count = n_bytes // np.dtype(type_of).itemsize
    if name.endswith("norm.weight"):
        yield np.ones(count, type_of).tobytes()
    elif name.endswith("ssm_a"):
        yield np.full(count, -1, type_of).tobytes()
    else:
        yield (0.02 * rng.standard_normal(count)).astype(type_of).tobytes()


def bench_rows(llama_bench: Path, model: Path) -> list[tuple[str, str]]:
    """Tokens per second by llama-bench, without a server."""
    argv = [str(llama_bench), "-m", str(model), "-p", "512", "-n", "128", "-ngl", "99", "-o", "json"]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return [
        (f"llama-bench {'prompt' if r['n_prompt'] else 'answer'}", f"{r['avg_ts']:.0f} ± {r['stddev_ts']:.0f} tokens/s")
        for r in found
    ]


def serve_rows(given: argparse.Namespace, model: Path, env: dict[str, str]) -> list[tuple[str, str]]:
    """Planned and used memory, load time and tokens per second of `serve`."""
    words = ["serve", str(model), "--ctx-size", str(given.ctx_size), "--port", str(given.port)]
    planned = json.loads(cli([*words, "--dry-run", "--json"], env))["instances"][0]["memory_bytes"]
    free_before, began = gpu_free_bytes(), time.monotonic()
    cli([*words, "--detach"], env)
    try:
        loaded_s = time.monotonic() - began
        taken = free_before - gpu_free_bytes()
        timings = answer(f"http://127.0.0.1:{given.port}", model.stem)
    finally:
        cli(["stop"], env)
    return [
        ("memory planned", ", ".join(f"{name} {size(n)}" for name, n in planned.items())),
        ("GPU memory taken", size(taken) if free_before else "no GPU"),
        ("time to ready", duration(loaded_s)),
        (f"prompt of {timings['prompt_n']} tokens", f"{timings['prompt_per_second']:.0f} tokens/s"),
        (f"answer of {timings['predicted_n']} tokens", f"{timings['predicted_per_second']:.0f} tokens/s"),
    ]


def answer(url: str, name: str) -> dict[str, Any]:
    """llama-server's timings of one long prompt and one long answer, through the gateway."""
    body = {
        "model": name,
        "prompt": [100 + i % 1000 for i in range(PROMPT_TOKENS)],
        "n_predict": ANSWER_TOKENS,
        "ignore_eos": True,
    }
    done = httpx.post(f"{url}/completion", json=body, timeout=600, trust_env=False).raise_for_status().json()
    return dict(done["timings"])


def gpu_free_bytes() -> int:
    return sum(g.free_bytes for g in host.probe(dict(os.environ)).gpus)


def cli(words: list[str], env: dict[str, str]) -> str:
    done = subprocess.run([*python_argv("nemotron_ops"), *words], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
