"""Two load generators of others, each run once on an endpoint: llama-benchy and guidellm. Subprocess, HTTP.

python -m venv /tmp/benchy && /tmp/benchy/bin/pip install llama-benchy
python -m venv /tmp/guide && /tmp/guide/bin/pip install guidellm
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nemotron_ops.measure.request import Target

TTFT, SPEED, PROMPT = "time to first token, ms", "tokens/s of a request", "prompt tokens"
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one generator sends in one turn, a request after the other."""

    target: Target
    prompts: Sequence[str]  # llama-benchy makes its own
    prompt_tokens: int
    answer_tokens: int
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}


def guidellm(program: Path, turn: Turn) -> Figures:
    """guidellm's own figures, as medians over the requests. It gets the prompts that `bench` would send."""
    data, out = turn.folder / "prompts.jsonl", turn.folder / "guidellm.json"
    rows = ({"prompt": p, "output_tokens_count": turn.answer_tokens} for p in turn.prompts)
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    backend = [
        "kind=openai_http", f"target={turn.target.url.removesuffix('/v1')}", f"model={turn.target.model}",
        "request_format=/v1/chat/completions", "extras.body.ignore_eos=true", "extras.body.temperature=0",
        "extras.body.cache_prompt=false", "validate_backend=false",
    ]  # fmt: skip
    argv = [
        str(program), "run", "--backend", ",".join(backend), "--profile", "kind=synchronous",
        "--constraint", f"kind=max_requests,count={len(turn.prompts)}", "--data", f"kind=json_file,path={data}",
        "--output", f"kind=json,path={out}", "--disable-console",
    ]  # fmt: skip
    found = _result(argv, out, turn.env)["benchmarks"][0]["requests"]["successful"]
    return {
        TTFT: statistics.median(r["time_to_first_token_ms"] for r in found),
        SPEED: statistics.median(1000 / r["inter_token_latency_ms"] for r in found),
        PROMPT: statistics.median(r["prompt_tokens"] for r in found),
    }


def llama_benchy(program: Path, turn: Turn) -> Figures:
    """llama-benchy's own figures, as medians over the requests. Its prompts are pieces of a book."""
    out = turn.folder / "benchy.json"
    (turn.folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    (turn.folder / "book.txt").write_text(book())
    with serving(turn.folder) as url:
        argv = [
            str(program), "--base-url", turn.target.url, "--model", turn.target.model, "--tokenizer", str(turn.folder),
            "--pp", str(turn.prompt_tokens), "--tg", str(turn.answer_tokens), "--runs", str(len(turn.prompts)),
            "--concurrency", "1", "--book-url", url, "--latency-mode", "none", "--no-warmup", "--no-adapt-prompt",
            "--no-cache", "--skip-coherence", "--extra-body", "ignore_eos=true", "--extra-body", "temperature=0",
            "--save-result", str(out), "--format", "json",
        ]  # fmt: skip
        (row,) = _result(argv, out, turn.env)["benchmarks"]
    return {
        TTFT: statistics.median(row["e2e_ttft"]["values"]),
        SPEED: statistics.median(row["tg_throughput"]["values"]),
    }


def _result(argv: Sequence[str], out: Path, env: Mapping[str, str]) -> Any:
    out.unlink(missing_ok=True)
    done = subprocess.run(argv, capture_output=True, text=True, env=dict(env), check=False)
    if done.returncode != 0 or not out.exists():
        raise SystemExit(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(out.read_text())


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
