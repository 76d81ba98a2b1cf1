"""A real supervisor without a model gets one, gets a second under requests, and loses the first: none is lost. 20 s."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stages.installation import Installation

pytestmark = pytest.mark.real

SUM = [{"role": "user", "content": "What is 2 + 2?"}]
TICK = [{"role": "user", "content": "please tick forever"}]
DENSE = '[model]\nsynthetic = "dense"\n[context]\ndefault_tokens = 2048\n'


@pytest.fixture
def port(installation: Installation, free_port: Callable[[], int]) -> Iterator[int]:
    """An endpoint without a model, at the port that comes back; a recipe `dense` beside `tiny`."""
    recipes = installation.home / "config" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "dense.toml").write_text(DENSE)
    port = free_port()
    installation.run("serve", "--empty", "--detach", "--port", str(port))
    yield port
    installation.run("stop", "--now")


def ask(port: int, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": SUM, "max_tokens": 60, **fields}
    return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=120, trust_env=False)


def answer(port: int, model: str) -> str:
    response = ask(port, model)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@contextmanager
def under_requests(port: int, model: str) -> Iterator[list[str]]:
    """Two clients that ask `model` one question after the other; their answers, or what came instead."""
    answers: list[str] = []
    end = threading.Event()

    def go_on() -> None:
        while not end.is_set():
            try:
                answers.append(answer(port, model))
            except (AssertionError, httpx.HTTPError) as exc:
                answers.append(repr(exc))

    clients = [threading.Thread(target=go_on) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        yield answers
    finally:
        end.set()
        for client in clients:
            client.join()


def listed(port: int) -> set[str]:
    models = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=10, trust_env=False).json()["data"]
    return {m["id"] for m in models}


def test_an_endpoint_without_a_model_says_what_to_do(installation: Installation, port: int) -> None:
    refused = ask(port, "tiny")
    assert refused.status_code == 404
    assert "nemotron-ops add" in refused.json()["error"]["message"]
    health = httpx.get(f"http://127.0.0.1:{port}/health", timeout=10, trust_env=False)
    assert (health.status_code, health.json()["error"]["message"]) == (503, "No model is served")
    assert listed(port) == set()
    assert "nemotron-ops add" in installation.run("status").stdout


def test_a_second_model_comes_and_the_first_goes_under_requests_and_none_is_lost(
    installation: Installation, port: int
) -> None:
    installation.run("add", "tiny")
    assert answer(port, "tiny") == "2 + 2 = 4."
    with under_requests(port, "tiny") as answers:
        added = installation.json("add", "dense", "--ctx-size", "4096")
        assert answer(port, "dense") == "2 + 2 = 4."
        installation.run("change", "dense", "--ctx-size", "2048")
        assert answer(port, "dense") == "2 + 2 = 4."
        seen = len(answers)
        deadline = time.monotonic() + 60
        while len(answers) < seen + 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (added["added"], added["kept"]) == (["dense-0"], ["tiny-0"])
    assert set(answers) == {"2 + 2 = 4."}
    assert listed(port) == {"nemotron-ops/tiny", "dense"}


def test_a_model_that_is_removed_answers_to_the_end_what_it_has_begun(installation: Installation, port: int) -> None:
    installation.run("add", "tiny")
    body = {"model": "tiny", "messages": TICK, "max_tokens": 1500, "stream": True}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as response:
        lines = response.iter_lines()
        next(line for line in lines if '"content":"' in line)
        assert installation.json("remove", "tiny")["removed"] == ["tiny-0"]
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert ask(port, "tiny").status_code == 404
    assert listed(port) == set()


def test_what_was_added_is_served_after_a_kill_with_the_same_words(installation: Installation, port: int) -> None:
    installation.run("add", "tiny", "--alias", "mine")
    status = installation.json("status")
    os.kill(status["pid"], signal.SIGKILL)
    installation.run("serve", "--empty", "--detach", "--port", str(port))
    assert answer(port, "mine") == "2 + 2 = 4."
    assert installation.json("status")["instances"][0]["pid"] == status["instances"][0]["pid"]  # it was adopted


def test_a_model_that_cannot_run_is_told_and_can_be_removed(installation: Installation, port: int) -> None:
    failed = installation.run("add", "tiny", "--", "--chat-template-kwargs", "nonsense", code=9)
    assert "`nemotron-ops remove tiny`" in failed.stderr
    installation.run("remove", "tiny")
    assert installation.json("status")["instances"] == []


def test_a_model_that_is_not_here_is_refused_before_anything_changes(installation: Installation, port: int) -> None:
    refused = installation.run("add", "4b", "--offline", code=7)
    assert "hint: run `nemotron-ops fetch 4b` first" in refused.stderr
    kept = json.loads((installation.home / "state" / "wish.json").read_text())
    assert kept["models"] == []


def test_add_without_a_supervisor_does_no_work(installation: Installation, tmp_path: Path) -> None:
    refused = installation.run("add", "tiny", code=10)
    assert "hint: start one with `nemotron-ops serve" in refused.stderr
