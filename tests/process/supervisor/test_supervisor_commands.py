"""The commands that talk to a supervisor, run as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.cli.logs import line_s
from nemotron_ops.errors import ControlError, EngineError, UsageError
from tests.stages.supervisor import Stage

pytestmark = pytest.mark.process


class Told(Stage):
    """A stage with a command line."""

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "NEMOTRON_OPS_HOME": str(self.folder / "home"), "TZ": "UTC"}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nemotron_ops", *words]

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        argv = self.argv(*words)
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    try:
        yield made
    finally:
        made.clear()


def test_status_shows_the_endpoint_and_each_instance(stage: Told) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0", "--say", "sorry", "--die", "3"))
    stage.up()
    stage.ready("a-0")
    stage.until(lambda: stage.one("b-0")["state"] == "failed")
    shown = stage.run("status", code=EngineError.exit_code).stdout
    assert f"http://127.0.0.1:{stage.port}/v1" in shown
    assert "| sorry" in shown
    assert "exited with code 3" in shown
    told = stage.json("status", code=EngineError.exit_code)
    assert {i["name"]: i["state"] for i in told["instances"]} == {"a-0": "ready", "b-0": "failed"}
    assert told["endpoint"]["port"] == stage.port


@pytest.mark.parametrize(
    "words", [("status",), ("start",), ("restart",), ("drain", "a"), ("reload",), ("events",), ("attach",)]
)
def test_without_a_supervisor_commands_say_so_and_how_to_start_one(stage: Told, words: tuple[str, ...]) -> None:
    told = stage.run(*words, code=ControlError.exit_code).stderr
    assert "error: cannot reach a supervisor: none is running" in told
    assert "hint: start one with `nemotron-ops serve RECIPE`" in told


def test_stopping_nothing_is_no_error_and_safe_to_repeat(stage: Told) -> None:
    assert "nothing is running" in stage.run("stop").stderr
    assert stage.json("stop") == {"ok": True, "instances": [], "supervisor": None, "dry_run": False}


def test_one_instance_is_stopped_started_drained_and_restarted_by_its_models_name(stage: Told) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    stage.up()
    pids = stage.ready("a-0", "b-0")
    assert stage.json("stop", "a", "--dry-run")["instances"] == ["a-0"]
    assert stage.ready("a-0")["a-0"] == pids["a-0"]
    stage.run("stop", "a")
    assert stage.one("a-0")["state"] == "stopped"
    stage.run("start", "a")
    assert stage.one("a-0")["state"] == "ready"
    stage.run("drain", "a")
    assert stage.one("a-0")["draining"]
    stage.run("restart", "a")
    assert stage.one("a-0")["state"] == "ready"
    assert not stage.one("a-0")["draining"]
    assert stage.ready("b-0")["b-0"] == pids["b-0"]


def test_a_start_that_fails_says_why_and_ends_with_the_engines_exit_code(stage: Told) -> None:
    missing = "gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (No such file or directory)"
    stage.configure(stage.fake("a-0", "--say", missing, "--die", "1"))
    stage.up()
    told = stage.run("restart", "a", code=EngineError.exit_code).stderr
    assert "error: cannot restart a-0: the model file /m/x.gguf is missing" in told
    assert "hint: fetch it with `nemotron-ops fetch`" in told


def test_everything_is_stopped_and_the_command_waits_for_it(stage: Told) -> None:
    stage.configure(stage.fake("a-0"))
    supervisor = stage.up()
    stage.ready("a-0")
    stage.run("stop")
    assert supervisor.wait(60) == 0
    assert stage.running() == []


def test_a_reload_says_what_it_did_and_what_it_would_do(stage: Told) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    stage.configure(stage.fake("a-0", "--words", "new"), stage.fake("b-0"))
    assert stage.json("reload", "--dry-run")["replaced"] == ["a-0"]
    assert "replaced: a-0" in stage.run("reload").stderr
    assert stage.run("reload", "--back").stderr.count("a-0") == 1
    assert "cannot combine" in stage.run("reload", "--back", "--exec", code=UsageError.exit_code).stderr
    stage.configure(stage.fake("a-0", "--mute"))
    told = stage.run("reload", code=EngineError.exit_code).stderr
    assert "error: cannot replace a-0: canary: it made no token" in told
    stage.configure(bad="recipes/x.toml: nonsense")
    assert "recipes/x.toml: nonsense" in stage.run("reload", code=ControlError.exit_code).stderr


def test_logs_are_shown_and_stay_readable_without_a_supervisor(stage: Told) -> None:
    stage.configure(stage.fake("a-0", "--say", "hello", "--say", "\x1b[31mred"), stage.fake("b-0", "--say", "other"))
    stage.up()
    stage.ready("a-0", "b-0")
    assert stage.run("logs", "a").stdout == "hello\n[31mred\n"
    assert stage.run("logs", "-n", "1").stdout == "a-0 | [31mred\nb-0 | other\n"
    assert stage.run("logs", "a", "--since", "1d").stdout == "hello\n[31mred\n"
    assert stage.json("logs", "b")[0]["lines"] == ["other"]
    stage.run("stop")
    assert stage.run("logs", "a", "-n", "1").stdout == "[31mred\n"
    assert "cannot find a log of 'x'" in stage.run("logs", "x", code=ControlError.exit_code).stderr


def test_events_are_lines_of_json_and_attach_follows_them_to_the_end(stage: Told) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    kinds = [json.loads(line)["kind"] for line in stage.run("events", "--json").stdout.splitlines()]
    assert kinds[0] == "supervisor-started"
    assert kinds[-1] == "ready"
    with subprocess.Popen(stage.argv("attach"), env=stage.env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert any("a-0 ready: pid" in line for line in watching.stdout)  # from here on it follows
        stage.run("stop")
        assert "supervisor-stopped" in watching.stdout.read()
    assert watching.returncode == 0


@pytest.mark.parametrize(
    ("line", "seconds"),
    [("0.06.838.563 I srv  operator", 6.838563), ("12.00.000.001 W x", 720.000001), ("load_tensors: x", None)],
)
def test_llama_servers_own_times_are_read(line: str, seconds: float | None) -> None:
    assert line_s(line) == pytest.approx(seconds)
