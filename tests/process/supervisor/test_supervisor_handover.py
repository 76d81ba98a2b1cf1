"""Crashes, upgrades and changes: running processes keep their pids, and foreign processes are not touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nemotron_ops.errors import ControlError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.supervisor.records import leftovers, lock, record
from tests.stages.supervisor import QUICK_HEALTH, QUICK_RESTART, Stage, alive, staged

pytestmark = pytest.mark.process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


class Knocking:
    """Connects to the endpoint again and again; counts answers and refusals."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.answers, self.failures = stage, 0, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                assert self.stage.connect().isdigit()
                self.answers += 1
            except (OSError, AssertionError) as exc:
                self.failures.append(repr(exc))
            self._stop.wait(0.01)

    def __enter__(self) -> Knocking:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_killed_supervisor_costs_no_process_and_no_connection(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    stage.up()
    pids = stage.ready("a-0", "b-0")
    gateway = stage.ask("status")["gateway"]["pid"]
    with Knocking(stage) as knocking:
        for _ in range(3):
            stage.kill()
            stage.up()
            assert stage.ready("a-0", "b-0") == pids
            assert stage.ask("status")["gateway"]["pid"] == gateway
    assert knocking.failures == []
    assert knocking.answers > 10
    assert stage.events("adopted")


def test_a_supervisor_killed_while_engines_load_adopts_them_loading(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    (stage.knobs("a-0") / "loading").touch()
    stage.up()
    stage.until(lambda: stage.one("a-0")["pid"])
    pid = stage.one("a-0")["pid"]
    stage.kill()
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "starting")
    (stage.knobs("a-0") / "loading").unlink()
    assert stage.ready("a-0")["a-0"] == pid


def test_a_supervisor_killed_between_start_and_record_finds_its_child_by_the_launch_it_carries(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.kill()
    path = record.records_dir(stage.layout) / "a-0.json"
    write_json(path, {**read_json(path), "pid": 0, "started": ""})  # type: ignore[dict-item]
    stage.up()
    assert stage.ready("a-0")["a-0"] == pid


def test_what_died_meanwhile_is_cleaned_up_and_started_again(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stale = [Path(i["socket"]) for i in stage.ask("snapshot")["snapshot"]["instances"]]
    stage.kill()
    os.kill(pid, signal.SIGKILL)
    stage.until(lambda: not alive(pid))
    stage.up()
    assert stage.ready("a-0")["a-0"] != pid
    assert not any(s.exists() for s in stale)


def test_a_foreign_process_with_a_recorded_pid_is_never_touched(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.kill()
    os.kill(pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            path = record.records_dir(stage.layout) / "a-0.json"
            write_json(path, {**read_json(path), "pid": stranger.pid})  # type: ignore[dict-item]
            stage.up()
            stage.ready("a-0")
            stage.down()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_damaged_record_is_put_aside(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    folder = record.records_dir(stage.layout)
    folder.mkdir(parents=True)
    (folder / "x.json").write_text('{"id": "x", "pid": ')
    stage.up()
    stage.ready("a-0")
    assert (folder / "x.damaged").exists()


def test_a_second_supervisor_is_refused_with_the_firsts_pid(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    first = stage.up()
    stage.ready("a-0")
    second = stage.up(wait=False)
    assert second.wait(60) == ControlError.exit_code
    assert f"another one is running with pid {first.pid}" in stage.said()
    assert lock.holder(stage.layout) == first.pid
    stage.process = first


def test_an_upgrade_in_place_keeps_pid_models_gateway_and_connections(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    supervisor = stage.up()
    pid = stage.ready("a-0")["a-0"]
    gateway = stage.ask("status")["gateway"]["pid"]
    with Knocking(stage) as knocking:
        for _ in range(2):
            began = stage.events("supervisor-started")
            stage.ask("reload", exec=True)
            stage.until(lambda: stage.started_since(began[0]["time_s"]))  # noqa: B023
            assert stage.ready("a-0")["a-0"] == pid
    status = stage.ask("status")
    assert (status["pid"], status["gateway"]["pid"]) == (supervisor.pid, gateway)
    assert knocking.failures == []
    assert stage.down() == 0


def test_after_an_upgrade_in_place_the_exit_code_of_a_child_is_still_known(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    began = stage.events("supervisor-started")[0]["time_s"]
    stage.ask("reload", exec=True)
    stage.until(lambda: stage.started_since(began))
    stage.ready("a-0")
    os.kill(pid, signal.SIGSEGV)
    stage.until(lambda: stage.events("died"))
    assert "SIGSEGV" in stage.events("died")[0]["message"]


def test_a_dead_gateway_is_replaced_on_the_same_socket_without_a_refused_connection(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    old = stage.ask("status")["gateway"]["pid"]
    os.kill(old, signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as sock:  # queues in the kernel
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert int(sock.makefile("rb").read().split()[-1]) != old
    assert stage.ask("status")["gateway"]["restarts"] == 1


def test_a_frozen_gateway_is_replaced(stage: Stage) -> None:
    stage.settings["gateway_probe"] = {"period_s": 0.2, "timeout_s": 1.0, "failures": 2}
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    old = int(stage.connect())
    os.kill(old, signal.SIGSTOP)
    stage.until(lambda: not alive(old))
    assert int(stage.connect()) != old
    assert stage.events("gateway-stuck")


def test_a_gateway_adopted_after_a_crash_can_still_be_replaced(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    stage.kill()
    stage.up()
    old = stage.ask("status")["gateway"]["pid"]
    os.kill(old, signal.SIGKILL)
    stage.until(lambda: stage.ask("status")["gateway"]["pid"] not in (None, old))
    assert int(stage.connect()) != old


def test_a_gateway_of_another_version_is_relieved_without_a_refused_connection(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    old = stage.ask("status")["gateway"]["pid"]
    with Knocking(stage) as knocking:
        stage.kill()
        stage.settings["gateway"] = [*stage.settings["gateway"][:1], "-B", *stage.settings["gateway"][1:]]
        stage.up()
        stage.until(lambda: not alive(old))
        stage.until(lambda: stage.connect() == str(stage.ask("status")["gateway"]["pid"]))
    assert knocking.failures == []


def test_what_a_dead_supervisor_left_is_stopped_without_a_new_one(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0", "--ignore-first-term"))
    stage.up()
    stage.ready("a-0", "b-0")
    with pytest.raises(ControlError, match="another one is running"):
        leftovers.stop_leftovers(stage.layout)
    stage.kill()
    assert sorted(leftovers.stop_leftovers(stage.layout, waits_s=(1.0, 2.0))) == ["a-0", "b-0", "gateway"]
    assert stage.running() == []
    assert leftovers.stop_leftovers(stage.layout) == []


def test_an_engine_whose_socket_was_swept_away_is_replaced(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.kill()
    for path in stage.layout.runtime.iterdir():
        path.unlink()
    stage.up()
    assert stage.ready("a-0")["a-0"] != pid
    assert not alive(pid)


def test_where_the_socket_cannot_be_copied_the_gateway_goes_on_and_the_port_comes_back(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    old = int(stage.connect())
    stage.kill()
    path = stage.layout.state / "gateway.json"
    value = read_json(path)
    assert value
    write_json(path, {**value, "extra": {**value["extra"], "fd": -1}})
    stage.up()
    assert int(stage.connect()) == old
    os.kill(old, signal.SIGKILL)
    stage.until(lambda: stage.ask("status")["gateway"]["pid"] not in (None, old))
    assert int(stage.connect()) != old


# ---- reload


def test_a_reload_leaves_unchanged_instances_alone_and_replaces_changed_ones_after_their_canary(stage: Stage) -> None:
    stage.configure(stage.fake("same-0"), stage.fake("changed-0"), stage.fake("gone-0"))
    stage.up()
    pids = stage.ready("same-0", "changed-0", "gone-0")
    stage.configure(stage.fake("same-0"), stage.fake("changed-0", "--words", "new"), stage.fake("added-0"))
    planned = stage.ask("reload", dry_run=True)
    assert stage.ready("same-0", "changed-0", "gone-0") == pids
    answer = stage.ask("reload")
    assert {k: planned[k] for k in ("kept", "replaced", "added")} == {
        k: answer[k] for k in ("kept", "replaced", "added")
    }
    assert {k: answer[k] for k in ("kept", "replaced", "added", "removed", "failed")} == {
        "kept": ["same-0"], "replaced": ["changed-0"], "added": ["added-0"], "removed": ["gone-0"], "failed": {},
    }  # fmt: skip
    now = stage.ready("same-0", "changed-0~2", "added-0")
    assert now["same-0"] == pids["same-0"]
    assert not alive(pids["changed-0"])
    assert not alive(pids["gone-0"])
    started = [e["serial"] for e in stage.events("ready") if e["instance"] == "changed-0~2"]
    stopped = [e["serial"] for e in stage.events("stopping") if e["instance"] == "changed-0"]
    assert started < stopped


def test_a_new_instance_gets_no_traffic_before_its_canary_has_passed(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    (stage.knobs("a-0") / "no-canary").touch()
    stage.configure(stage.fake("a-0", "--words", "new"))
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(stage.ask("reload")))
    asking.start()
    stage.until(lambda: [e for e in stage.events("ready") if e["instance"] == "a-0~2"])
    assert stage.one("a-0~2")["state"] == "starting"
    assert stage.one("a-0")["state"] == "ready"
    (stage.knobs("a-0") / "no-canary").unlink()
    asking.join()
    assert stage.ready("a-0~2")
    assert len(answers) == 1


@pytest.mark.parametrize("words", [("--die", "1"), ("--mute",)])
def test_a_change_that_does_not_work_keeps_the_old_process(stage: Stage, words: tuple[str, ...]) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.configure(stage.fake("a-0", *words))
    answer = stage.ask("reload")
    assert list(answer["failed"]) == ["a-0"]
    assert stage.instances().keys() == {"a-0"}
    assert stage.ready("a-0")["a-0"] == pid
    stage.configure(stage.fake("a-0"))
    assert stage.ask("reload")["kept"] == ["a-0"]


def test_a_bad_configuration_changes_nothing_and_says_why(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.configure(bad="recipes/x.toml: server.ctx_size: expected an integer")
    with pytest.raises(ControlError, match="expected an integer"):
        stage.ask("reload")
    assert stage.process
    stage.process.send_signal(signal.SIGHUP)
    stage.until(lambda: stage.events("reload-failed"))
    stage.configure(stage.fake("a-0"), stage.fake("a-0"))
    with pytest.raises(ControlError, match="two instances"):
        stage.ask("reload")
    assert stage.ready("a-0")["a-0"] == pid


def test_where_memory_forbids_two_the_old_one_goes_first_and_comes_back_if_the_new_one_fails(stage: Stage) -> None:
    one = stage.fake("a-0", memory_bytes={"Host": 6})
    stage.configure(one, capacity_bytes={"Host": 10})
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.configure(replace(one, argv=(*one.argv, "--words", "new")), capacity_bytes={"Host": 10})
    assert stage.ask("reload")["replaced"] == ["a-0"]
    assert stage.ready("a-0")["a-0"] != pid
    stage.configure(replace(one, argv=(*one.argv, "--die", "1")), capacity_bytes={"Host": 10})
    assert "a-0" in stage.ask("reload")["failed"]
    stage.ready("a-0")
    assert "new" in psutil.Process(stage.one("a-0")["pid"]).cmdline()


def test_a_rollback_goes_back_to_the_configuration_before(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--words", "one"))
    stage.up()
    stage.ready("a-0")
    with pytest.raises(ControlError, match="nothing was reloaded"):
        stage.ask("rollback")
    stage.configure(stage.fake("a-0", "--words", "two"))
    stage.ask("reload")
    assert stage.ask("rollback")["replaced"] == ["a-0"]
    words = [psutil.Process(i["pid"]).cmdline() for i in stage.instances().values()]
    assert len(words) == 1
    assert "one" in words[0]


def test_a_change_of_policy_alone_restarts_nothing(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.configure(stage.fake("a-0", restart=replace(QUICK_RESTART, max_restarts=0), health=QUICK_HEALTH))
    stage.ask("reload")
    assert stage.ready("a-0")["a-0"] == pid
    os.kill(pid, signal.SIGKILL)
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
