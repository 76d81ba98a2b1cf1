"""`bench` as people run it: on an endpoint of its own, on a running one, kept, shown, compared. Costs 20 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.stages.installation import Installation, Served

pytestmark = pytest.mark.real

SMALL = ("--requests", "4", "--repeat", "2", "--prompt", "60", "--answer", "8")


def test_a_recipe_is_measured_on_an_endpoint_of_its_own_and_kept(installation: Installation) -> None:
    (found,) = installation.json("bench", "tiny", *SMALL, "--concurrency", "1,2", "--limit", "ttft=30s")
    assert [r["load_name"] for r in found["results"]] == ["closed 1 · 60+8", "closed 2 · 60+8"]
    for result in found["results"]:
        summary = result["summary"]
        assert (summary["requests"], summary["errors"], summary["goodput_share"]) == (8, 0, 1.0)
        assert summary["answer_tokens"] == 8
        assert abs(summary["prompt_tokens"] - 60) <= 8
        assert summary["cached_tokens"] < 40  # cold: no request finds the prompt of another
        assert 0 < summary["ttft_s"]["p50"] <= summary["latency_s"]["p50"]
        assert summary["engine_tokens_per_s"] > 0
        assert ("watts" in summary) is ("measured" in found["made_by"]["power"])  # or it says why not
    made = found["made_by"]
    assert made["build"]["id"]
    assert len(made["model"]["files"][0]["sha256"]) == 64
    assert "--ctx-size" in made["flags"]
    installation.run("status", code=10)  # nothing is left running
    assert [r["id"] for r in installation.json("bench", "list")] == [found["id"]]
    assert installation.json("bench", "show")["id"] == found["id"]
    compared = installation.json("bench", "compare", found["id"], "last")
    assert {c["verdict"] for c in compared["changes"]} == {"too few repeats"}


def test_a_running_endpoint_is_measured_as_it_is(tiny: Served) -> None:
    here = tiny.installation
    by_socket = here.json("bench", *SMALL)
    by_url = here.json("bench", "--url", tiny.url, "--model", "tiny", *SMALL, "--warm")
    assert by_socket[0]["label"] == "tiny"
    warm = by_url[0]["results"][0]["summary"]
    assert warm["errors"] == 0
    assert warm["cached_tokens"] > 40  # warm: the prompt is in the cache


def test_llama_bench_is_shown_beside(installation: Installation) -> None:
    (found,) = installation.json("bench", "tiny", *SMALL, "--llama-bench")
    summary = found["results"][0]["summary"]
    assert summary["llama_bench_prompt_per_s"] > 0
    assert summary["llama_bench_tokens_per_s"] > summary["engine_tokens_per_s"] / 10
    assert "its prompt" in installation.run("bench", "show").stdout
    assert "it needs a recipe" in installation.run("bench", "--llama-bench", "--url", "http://h/v1", code=2).stderr


def test_words_that_are_wrong_are_told(installation: Installation) -> None:
    assert "no supervisor is running" in installation.run("bench", code=2).stderr
    assert "there is no such recipe" in installation.run("bench", "tyni", code=3).stderr
    assert "positive numbers" in installation.run("bench", "tiny", "--concurrency", "0", code=2).stderr
    assert "cannot read the limit" in installation.run("bench", "tiny", "--limit", "soon", code=2).stderr
    gone = installation.run("bench", "--url", "http://127.0.0.1:9/v1", "--model", "m", code=9)
    assert "cannot connect" in gone.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")
def test_a_kill_of_the_measurement_ends_its_endpoint(installation: Installation, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "nemotron_ops", "bench", "tiny", "--requests", "500", "--repeat", "500"]
    env = {**installation.env, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        next(line for line in child.stderr if "closed 1" in line)  # the load runs
        family = psutil.Process(child.pid).children(recursive=True)
        os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while alive := [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.05)


def test_kept_lines_are_json(installation: Installation) -> None:
    installation.run("bench", "tiny", *SMALL)
    lines = (installation.home / "state/measure/bench.jsonl").read_text().splitlines()
    assert all(json.loads(line)["run"] for line in lines)
