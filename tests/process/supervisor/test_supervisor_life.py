"""Life and death of instances under a real supervisor process, with a fake engine that misbehaves on demand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nemotron_ops.errors import ControlError, EngineError
from nemotron_ops.policy import RestartPolicy
from nemotron_ops.processes import logfiles
from nemotron_ops.supervisor.control import client
from tests.stages.supervisor import HASTY_HEALTH, QUICK_HEALTH, QUICK_RESTART, Stage, alive, staged

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def test_an_instance_that_dies_is_started_again_with_the_reason_shown(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    os.kill(pid, signal.SIGKILL)
    stage.until(lambda: stage.one("a-0")["pid"] not in (None, pid) and stage.one("a-0")["state"] == "ready")
    assert stage.one("a-0")["restarts"] == 1
    assert "SIGKILL" in stage.events("died")[0]["message"]
    stage.ask("restart", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["restarts"] == 2)
    stage.until(
        lambda: stage.ask("snapshot")["snapshot"]["instances"][0]["restart_reasons"] == {"killed": 1, "asked": 1}
    )


def test_an_instance_that_keeps_dying_ends_as_failed_with_its_last_words_and_restart_clears_it(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--say", "GPU went home", "--die", "3"))
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    one = stage.one("a-0")
    assert "exited with code 3" in one["reason"]
    assert "4 times within 60 s" in one["reason"]
    assert one["log_tail"][-1] == "GPU went home"
    assert stage.ask("status")["failed"]
    assert len(stage.events("died")) == QUICK_RESTART.max_restarts
    stage.ask("restart", names=["a-0"])
    stage.until(lambda: len(stage.events("died")) > QUICK_RESTART.max_restarts)


def test_a_hopeless_death_is_not_repeated_and_says_what_to_do(stage: Stage) -> None:
    missing = "gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (No such file or directory)"
    stage.configure(stage.fake("a-0", "--say", missing, "--die", "1"))
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert stage.one("a-0")["reason"].startswith("the model file /m/x.gguf is missing")
    assert "nemotron-ops fetch" in stage.one("a-0")["hint"]
    assert stage.events("died") == []


def test_a_program_that_cannot_be_started_is_a_failure_with_a_reason(stage: Stage) -> None:
    stage.configure(replace(stage.fake("a-0"), argv=("/no/such/llama-server",)))
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert "No such file" in stage.one("a-0")["reason"]


def test_a_supervisor_of_one_failed_instance_can_end_with_the_errors_exit_code(stage: Stage) -> None:
    stage.settings["exit_on_failed"] = True
    stage.configure(stage.fake("a-0", "--die", "1", restart=replace(QUICK_RESTART, policy=RestartPolicy.NO)))
    process = stage.up(wait=False)
    assert process.wait(60) == EngineError.exit_code
    assert stage.running() == []


def test_loading_is_shown_and_silence_while_loading_is_a_fault(stage: Stage) -> None:
    hasty = replace(QUICK_HEALTH, load_stall_s=1.5)
    stage.configure(
        stage.fake("talks-0", "--load-s", "3.5", "--chatty-load", health=hasty),
        stage.fake("silent-0", "--load-s", "600", health=hasty),
    )
    stage.up()
    stage.until(lambda: stage.one("silent-0")["restarts"] >= 1)
    assert "no progress while loading" in stage.events("stuck")[0]["message"]
    stage.ready("talks-0")
    assert stage.one("talks-0")["restarts"] == 0


def test_a_decode_that_stops_while_health_says_ok_is_found_and_ended(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--ignore-term", health=HASTY_HEALTH))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    (stage.knobs("a-0") / "wedged").touch()
    stage.until(lambda: not alive(pid))
    (stage.knobs("a-0") / "wedged").unlink()
    stage.until(lambda: stage.one("a-0")["state"] == "ready" and stage.one("a-0")["pid"] != pid)
    assert "task queue has not answered" in stage.events("stuck")[0]["message"]


def test_busy_slots_without_a_token_are_a_wedge(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", health=HASTY_HEALTH))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    (stage.knobs("a-0") / "stuck").touch()
    stage.until(lambda: not alive(pid))
    (stage.knobs("a-0") / "stuck").unlink()
    assert "no token moved" in stage.events("stuck")[0]["message"]


def test_a_long_silent_prefill_that_advances_survives(stage: Stage) -> None:
    stage.configure(
        stage.fake("a-0", health=replace(QUICK_HEALTH, wedge_s=2.0)), stage.fake("clock-0", "--die-after-s", "5")
    )
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    (stage.knobs("a-0") / "prefill").touch()
    stage.until(lambda: stage.one("clock-0")["restarts"] >= 1)  # more than twice wedge_s later
    assert stage.one("a-0")["pid"] == pid
    assert stage.events("stuck") == []


def test_a_frozen_process_is_killed_with_its_group(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--grandchild", health=HASTY_HEALTH))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    grandchild = int((stage.knobs("a-0") / "grandchild").read_text())
    os.kill(pid, signal.SIGSTOP)
    stage.until(lambda: not alive(pid) and not alive(grandchild))
    stage.until(lambda: stage.one("a-0")["state"] == "ready")


def test_grandchildren_do_not_outlive_a_crash(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--grandchild"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    grandchild = int((stage.knobs("a-0") / "grandchild").read_text())
    os.kill(pid, signal.SIGKILL)
    stage.until(lambda: not alive(grandchild))


def test_the_stop_recipe_waits_for_requests_then_terms_twice_then_kills(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--ignore-term", health=replace(QUICK_HEALTH, drain_s=0.5, stop_s=0.5)))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.inflight(a_0=1)
    stage.until(lambda: stage.one("a-0")["inflight"] == 1)
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["draining"])
    assert not (stage.knobs("a-0") / f"term-{pid}").exists()
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")
    assert (stage.knobs("a-0") / f"term-{pid}").read_text() == "2"
    assert not alive(pid)
    assert len(stage.events("killing")) == 1


def test_draining_ends_as_soon_as_the_last_request_has(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", health=replace(QUICK_HEALTH, drain_s=600)))
    stage.up()
    stage.ready("a-0")
    stage.inflight(a_0=2)
    stage.until(lambda: stage.one("a-0")["inflight"] == 2)
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["draining"])
    stage.inflight()
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")


def test_a_lost_first_sigterm_is_followed_by_a_second(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--ignore-first-term"))
    stage.up()
    stage.ready("a-0")
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")
    assert stage.events("killing") == []


def test_an_instance_stopped_by_hand_stays_stopped_over_a_crash_of_the_supervisor(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    stage.up()
    pids = stage.ready("a-0", "b-0")
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")
    stage.kill()
    stage.up()
    assert stage.ready("b-0")["b-0"] == pids["b-0"]
    stage.until(lambda: "a-0" in stage.instances())  # it has no process to adopt, so it comes with the configuration
    assert (stage.one("a-0")["state"], stage.one("a-0")["wanted"]) == ("stopped", False)
    stage.ask("start", names=["a-0"])
    stage.ready("a-0")


def test_an_orderly_end_leaves_nothing_behind(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0", "--ignore-term"))
    stage.up()
    stage.ready("a-0", "b-0")
    assert stage.down() == 0
    assert stage.running() == []
    assert list(stage.layout.runtime.iterdir()) == []
    assert list((stage.layout.state / "instances").iterdir()) == []
    assert not (stage.layout.state / "gateway.json").exists()


def test_a_drained_instance_stays_loaded_and_out_of_traffic_until_it_is_started(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.ask("drain", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["draining"])
    stage.ask("start", names=["a-0"])
    stage.until(lambda: not stage.one("a-0")["draining"])
    assert stage.one("a-0")["pid"] == pid


def test_a_flood_of_log_lines_neither_blocks_the_engine_nor_loses_the_end(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--flood", "200"))
    stage.up()
    stage.ready("a-0")
    assert stage.ask("logs", names=["a-0"], lines=1)["logs"][0]["lines"][0].startswith("line 999 ")


def test_a_flood_of_log_lines_is_rotated_under_the_running_engine(stage: Stage) -> None:
    stage.settings["timing"] = {"rotate_s": 0.2}
    stage.configure(stage.fake("a-0", "--flood", "400"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    log = Path(stage.one("a-0")["log"])
    stage.until(lambda: len(logfiles.files_of(log)) == 2 and log.stat().st_blocks * 512 < logfiles.LIMIT_BYTES)
    assert stage.one("a-0")["pid"] == pid
    numbers = [int(line.split()[1]) for line in logfiles.read_lines(log)]
    assert numbers == [n for _ in range(400) for n in range(1000)]


@pytest.mark.parametrize(("may_shrink", "contexts"), [(True, ["16384", "8192", "4096"]), (False, ["16384"] * 3)])
def test_only_a_context_that_nobody_asked_for_shrinks_when_memory_runs_out(
    stage: Stage, may_shrink: bool, contexts: list[str]
) -> None:
    said = "ggml_aligned_malloc: insufficient memory (attempted to allocate 24414.06 MB)"
    words = ("--say", said, "--die", "1", "--ctx-size", "16384", "--echo-ctx")
    stage.configure(stage.fake("a-0", *words, may_shrink=may_shrink, restart=replace(QUICK_RESTART, max_restarts=2)))
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert [line.split()[1] for line in logfiles.read_lines(Path(stage.one("a-0")["log"])) if "ctx" in line] == contexts
    assert "24414.06 MB could not be allocated" in stage.one("a-0")["reason"]


def test_each_process_has_its_own_key_and_a_private_socket(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    stage.up()
    stage.ready("a-0", "b-0")
    snapshot = stage.ask("snapshot")["snapshot"]
    files = [Path(i["api_key_file"]) for i in snapshot["instances"]]
    assert len({f.read_text() for f in files}) == 2
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert stage.layout.runtime.stat().st_mode & 0o777 == 0o700
    assert stage.layout.control_socket.stat().st_mode & 0o777 == 0o600
    for process in stage.running():
        assert not any(f.read_text().strip() in " ".join(process.cmdline()) for f in files)


def test_a_child_gets_a_scrubbed_environment_and_its_own_session(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_TOOLS", "all")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    env = psutil.Process(pid).environ()
    assert not {"LLAMA_ARG_TOOLS", "HF_TOKEN"} & env.keys()
    assert env["HOME"] == str(stage.layout.state / "home")
    assert os.getsid(pid) == pid


def test_events_are_followed_as_they_happen(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    following = client.follow(stage.layout, "events", count=1)
    assert next(following)["kind"] == "ready"
    stage.ask("stop", names=["a-0"])
    kinds = []
    for entry in following:
        kinds.append(entry["kind"])
        if entry["kind"] == "stopped":
            break
    assert kinds == ["stopping", "stopped"]


def test_requests_that_are_not_understood_are_answered_and_harmless(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    for verb, args in (
        ("no-such", {}),
        ("stop", {"names": ["nobody"]}),
        ("stop", {"names": "a-0"}),
        ("want", {"model": "x"}),
    ):
        with pytest.raises(ControlError, match="cannot"):
            stage.ask(verb, **args)
    stage.ready("a-0")


def test_the_supervisor_leaks_neither_descriptors_nor_threads_over_many_restarts(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    process = psutil.Process(stage.up().pid)
    stage.ready("a-0")
    before = None
    for turn in range(6):
        pid = stage.one("a-0")["pid"]
        stage.ask("restart", names=["a-0"])
        stage.until(lambda pid=pid: stage.one("a-0")["pid"] not in (None, pid) and stage.one("a-0")["state"] == "ready")  # type: ignore[misc]
        if turn == 1:
            before = process.num_fds()
    assert before is not None
    stage.until(lambda: process.num_fds() <= before + 2)
    assert process.num_threads() <= 40


def test_a_second_signal_does_not_wait_for_requests(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", health=replace(QUICK_HEALTH, drain_s=3600)))
    supervisor = stage.up()
    stage.ready("a-0")
    stage.inflight(a_0=1)
    stage.until(lambda: stage.one("a-0")["inflight"] == 1)
    supervisor.send_signal(signal.SIGINT)
    stage.until(lambda: stage.one("a-0")["draining"])
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(60) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_control_socket_answers_its_owner_only(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.layout.runtime.chmod(0o777)  # even if the folder let them in
    stage.layout.control_socket.chmod(0o777)
    asking = f"""
import os, socket
os.chdir({str(stage.layout.runtime)!r})
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect("control.sock")
try:
    sock.sendall(b'{{"verb": "stop"}}\\n')
except BrokenPipeError:
    pass  # refused before it was asked
print(sock.makefile().readline())
"""
    done = subprocess.run([sys.executable, "-I", "-c", asking], capture_output=True, text=True, timeout=60, check=False)
    assert "cannot answer user 65534" in done.stdout, done.stderr
    assert stage.ready("a-0")
