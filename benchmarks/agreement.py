"""Holds `bench` against an independent load generator, llama-benchy, on one endpoint. Processes, HTTP.

Both measure the same endpoint in turns, with prompts and answers of the same number of tokens: a model through the
whole product, or with `--timed` an engine that streams at known moments and needs hardly any processor, so that a busy
machine does not decide. Prints medians over the turns and by how much they differ.

    python -m venv /tmp/gen && /tmp/gen/bin/pip install llama-benchy
    python -m benchmarks.agreement --llama-benchy /tmp/gen/bin/llama-benchy --recipe tiny
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from nemotron_ops.installation import Installation
from nemotron_ops.measure.endpoint import started
from nemotron_ops.measure.generator import calibrate, measure
from nemotron_ops.measure.load import Load
from nemotron_ops.measure.request import Target
from nemotron_ops.measure.summary import summarise
from nemotron_ops.paths import user_layout
from nemotron_ops.ui import Ui

COUNTER = "nemotron_ops_tokens_total{"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-benchy", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--timed", action="store_true", help="the engine of the tests instead of a recipe")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--requests", type=int, default=8, help="in each turn")
    given = parser.parse_args()
    env = dict(os.environ)
    here = Installation(layout=user_layout(env, uid=os.getuid()), env=env, report=Ui().report)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        target = timed(folder, stack) if given.timed else served(given.recipe, here, stack)
        (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
        (folder / "book.txt").write_text(book())
        with serving(folder) as url:
            ours, theirs = turns(given, target, folder, url)
    for figure in ("TTFT, ms", "tokens/s of a request", "prompt tokens"):
        a, b = (statistics.median(t[figure] for t in side) for side in (ours, theirs))
        sys.stdout.write(f"{figure:24} bench {a:9.2f}   llama-benchy {b:9.2f}   {a / b - 1:+.1%}\n")


def served(recipe: str, here: Installation, stack: ExitStack) -> Target:
    """The recipe on an endpoint of its own."""
    endpoint = stack.enter_context(started((recipe,), here))
    return Target(url=endpoint.url, model=endpoint.composed.plans[0].name)


def timed(folder: Path, stack: ExitStack) -> Target:
    """An engine that sends the first token after 50 ms and one each 10 ms from then on."""
    argv = [sys.executable, "-m", "tests.fakes.timed_engine", str(folder), "0.05", "0.01", "64"]
    child = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
    stack.callback(child.kill)
    assert child.stdout is not None
    port = child.stdout.readline().split()[1]
    return Target(url=f"http://127.0.0.1:{port}/v1", model="timed")


def turns(
    given: argparse.Namespace, target: Target, folder: Path, book_url: str
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The figures of both, a turn each."""
    tokenizer = calibrate(target)
    length = given.prompt if given.timed else round(benchy(given, target, folder, book_url)["prompt tokens"])
    load = Load(requests=given.requests, prompt_tokens=length, answer_tokens=given.answer)
    ours, theirs = [], []
    for turn in range(given.turns):
        measured = measure(target, load, tokenizer=tokenizer, salt=str(turn))
        found = summarise(measured.samples, measured.wall_s)
        ours.append(
            {
                "TTFT, ms": 1000 * found["ttft_s"]["mean"],
                "tokens/s of a request": found["request_tokens_per_s"]["mean"],
                "prompt tokens": found["prompt_tokens"],
            }
        )
        theirs.append(benchy(given, target, folder, book_url))
    return ours, theirs


def benchy(given: argparse.Namespace, target: Target, folder: Path, book_url: str) -> dict[str, float]:
    """One run of llama-benchy."""
    out = folder / "result.json"
    argv = [
        str(given.llama_benchy), "--base-url", target.url, "--model", target.model, "--tokenizer", str(folder),
        "--pp", str(given.prompt), "--tg", str(given.answer), "--runs", str(given.requests), "--concurrency", "1",
        "--book-url", book_url, "--latency-mode", "none", "--no-warmup", "--no-adapt-prompt", "--no-cache",
        "--skip-coherence", "--extra-body", "ignore_eos=true",
        "--extra-body", "temperature=0", "--save-result", str(out), "--format", "json",
    ]  # fmt: skip
    env = {**os.environ, "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    before = 0.0 if given.timed else prompt_tokens(target.url)
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0 or not out.exists():
        raise SystemExit(f"llama-benchy ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    (row,) = json.loads(out.read_text())["benchmarks"]
    return {
        "TTFT, ms": row["e2e_ttft"]["mean"],
        "tokens/s of a request": row["tg_throughput"]["mean"],
        "prompt tokens": given.prompt if given.timed else (prompt_tokens(target.url) - before) / given.requests,
    }


def prompt_tokens(url: str) -> float:
    """All prompt tokens that the gateway has counted so far."""
    text = httpx.get(url.removesuffix("/v1") + "/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(COUNTER) and 'kind="prompt"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class serving:
    """The folder's files over HTTP on loopback, during a `with` block; the value is the book's URL."""

    def __init__(self, folder: Path) -> None:
        handler = partial(_Quiet, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_address[1]}/book.txt"

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def book() -> str:
    """700 kB of English prose that every Python carries."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def byte_tokenizer() -> dict[str, Any]:
    """A tokenizer of single bytes, in the form of Hugging Face's tokenizers: the tiny models' own is little else."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    letters |= {b: chr(256 + n) for n, b in enumerate(b for b in range(256) if b not in letters)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {letter: b for b, letter in letters.items()}
    model: dict[str, Any] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": [],
    }  # fmt: skip
    rest: dict[str, Any] = {
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "post_processor": None,
    }
    return {"version": "1.0", **rest, "pre_tokenizer": level, "decoder": level, "model": model}


if __name__ == "__main__":
    main()
