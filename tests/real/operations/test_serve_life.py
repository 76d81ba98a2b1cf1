"""`serve` from start to end: what it prints, how it stops, what it refuses, and how it fails."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.stages.installation import Installation, interrupt, wait_for_line

pytestmark = pytest.mark.real


def test_ctrl_c_lets_a_stream_in_flight_end_and_exits_with_0(
    installation: Installation, free_port: Callable[[], int]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "please tick forever"}], "stream": True}
    with installation.started("serve", "tiny", "--port", str(port)) as served:
        wait_for_line(served, "ready  http")
        with httpx.stream("POST", url, json={**ask, "max_tokens": 2000}, timeout=60) as response:
            lines = response.iter_lines()
            next(line for line in lines if '"content":"' in line)
            os.kill(served.pid, signal.SIGINT)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert served.wait(60) == 0


def test_a_dry_run_shows_the_exact_command_and_where_each_value_came_from(installation: Installation) -> None:
    shown = installation.json("serve", "30b", "--profile", "guide", "--top_p", "0.9", "--dry-run")
    settings = shown["models"][0]["settings"]
    assert shown["endpoint"] == "http://127.0.0.1:8001/v1"
    assert settings["top_p"] == {"value": 0.9, "source": "--top-p"}
    assert settings["min_p"] == {"value": 0.01, "source": "profile guide"}
    assert settings["parallel"] == {"value": 4, "source": "recipe 30b [server]"}
    argv = shown["instances"][0]["argv"]
    assert Path(argv[0]).name == "llama-server"
    assert argv[argv.index("--alias") + 1] == "unsloth/Nemotron-3-Nano-30B-A3B"
    assert not (installation.home / "data" / "models").exists()


def test_special_is_off_unless_asked_for_and_then_says_so(installation: Installation) -> None:
    assert "--special" not in installation.run("serve", "tiny", "--dry-run").stdout
    asked = installation.run("serve", "tiny", "--special", "--dry-run")
    assert "--special" in asked.stdout
    assert "end token" in asked.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--log-file", "/tmp/x"), "--log-file"),
        (("--tools", "all"), "--tools"),
        (("--cache-reuse", "256"), "--cache-reuse"),
        (("--no-such-flag",), "--no-such-flag"),
    ],
)
def test_flags_for_llama_server_pass_an_allow_list(
    installation: Installation, words: tuple[str, ...], complaint: str
) -> None:
    refused = installation.run("serve", "tiny", "--dry-run", "--", *words, code=2)
    assert complaint in refused.stderr


def test_allowed_flags_for_llama_server_are_passed_on(installation: Installation) -> None:
    argv = installation.json("serve", "tiny", "--dry-run", "--", "--poll", "0")["instances"][0]["argv"]
    assert argv[-2:] == ["--poll", "0"]


def test_what_is_missing_is_an_error_where_it_may_not_be_got(installation: Installation, tmp_path: Path) -> None:
    model = installation.run("serve", "4b", "--offline", code=7)
    assert "hint: run `nemotron-ops fetch 4b` first" in model.stderr
    (tmp_path / "empty").mkdir()
    bare = Installation(home=tmp_path / "empty", env={**installation.env, "NEMOTRON_OPS_HOME": str(tmp_path / "empty")})
    build = bare.run("serve", "tiny", "--no-build", code=6)
    assert "hint: run `nemotron-ops build` first" in build.stderr


def test_a_file_that_is_no_model_is_refused_before_anything_starts(installation: Installation, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"<!doctype html>" * 10)
    refused = installation.run("serve", str(broken), code=7)
    assert "hint: this is a web page" in refused.stderr


def test_a_failed_start_detached_is_told_with_its_reason(
    installation: Installation, free_port: Callable[[], int]
) -> None:
    words = ("serve", "tiny", "--detach", "--port", str(free_port()), "--", "--chat-template-kwargs", "nonsense")
    failed = installation.run(*words, code=9)
    assert "chat-template-kwargs" in failed.stderr
    installation.run("status", code=10)


def test_status_logs_and_stop_speak_json(installation: Installation, free_port: Callable[[], int]) -> None:
    ready = installation.json("serve", "tiny", "--detach", "--port", str(free_port()))
    assert ready["models"] == ["nemotron-ops/tiny"]
    status = installation.json("status")
    assert [i["state"] for i in status["instances"]] == ["ready"]
    assert "listening" in installation.run("logs").stdout
    stopped = json.loads(installation.run("stop", "--json").stdout)
    assert stopped
    again = installation.run("status", code=10)
    assert "none is running" in again.stderr


def test_two_models_are_served_at_one_endpoint(installation: Installation, free_port: Callable[[], int]) -> None:
    recipes = installation.home / "config" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "dense.toml").write_text('[model]\nsynthetic = "dense"\n[context]\ndefault_tokens = 2048\n')
    port = free_port()
    with installation.started("serve", "tiny", "dense", "--port", str(port)) as served:
        wait_for_line(served, "ready  http")
        listed = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=10).json()
        assert {m["id"] for m in listed["data"]} == {"nemotron-ops/tiny", "dense"}
        for model in ("tiny", "dense"):
            body = {"model": model, "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60).json()
            assert answer["choices"][0]["message"]["content"] == "2 + 2 = 4."
        assert interrupt(served) == 0
