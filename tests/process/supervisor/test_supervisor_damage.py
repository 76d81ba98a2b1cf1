"""Damaged records and lost files beside living processes: one engine, one gateway, no traceback. About 3 s a damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.leftovers import stop_leftovers
from tests.stages.supervisor import Stage, alive, staged
from tests.tables.damages import DAMAGES

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def up_and_killed(stage: Stage) -> int:
    """An engine and a gateway without their supervisor; the engine's pid."""
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    stage.kill()
    return pid


def records(stage: Stage) -> tuple[Path, Path]:
    return record.records_dir(stage.layout) / "a-0.json", stage.layout.state / "gateway.json"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_beside_a_living_process_makes_no_second_one(stage: Stage, damage: str) -> None:
    pid = up_and_killed(stage)
    for path in (*records(stage), stage.layout.state / "wanted.json"):
        if path.exists():
            DAMAGES[damage](path)
    stage.settings["port"] = stage.port
    stage.up()
    now = stage.ready("a-0")["a-0"]
    assert now == pid or not alive(pid)
    stage.until(lambda: stage.count("llama_server.py") == 1)
    stage.until(lambda: stage.connect() == str(stage.ask("status")["gateway"]["pid"]))
    stage.until(lambda: stage.count("gateway.py") == 1)
    assert "Traceback" not in stage.said()
    assert stage.down() == 0
    assert stage.running() == []


@pytest.mark.parametrize("lost", ["both", "pid 0"])
def test_a_stop_finds_what_no_record_names(stage: Stage, lost: str) -> None:
    up_and_killed(stage)
    for path in records(stage):
        if lost == "both":
            path.unlink()
        else:
            path.write_text(path.read_text().replace('"pid": ', '"pid": 0, "was": '))
    assert sorted(stop_leftovers(stage.layout)) == ["a-0", "gateway"]
    assert stage.running() == []


def test_a_swept_runtime_folder_comes_back_and_its_engines_are_started_again(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"))
    stage.up()
    pid = stage.ready("a-0")["a-0"]
    for path in stage.layout.runtime.iterdir():
        path.unlink()
    stage.until(lambda: stage.one("a-0")["pid"] not in (None, pid) and stage.one("a-0")["state"] == "ready")
    assert "socket" in stage.events("stuck")[0]["message"]
    assert not alive(pid)


def test_a_bug_in_an_owner_is_a_failed_instance_and_stop_ends(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--words", "a\0b"), stage.fake("b-0"))
    stage.up()
    stage.ready("b-0")
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert "null byte" in stage.one("a-0")["reason"]
    assert "null byte" in stage.events("bug")[0]["message"]
    assert stage.down() == 0


def test_records_that_cannot_be_written_stop_nothing(stage: Stage) -> None:
    folder = record.records_dir(stage.layout)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way of every record")
    (stage.layout.state / "gateway.json").mkdir()
    (stage.layout.state / "gateway.json" / "in the way").touch()
    (stage.layout.state / "gateway.damaged").write_text("and this")
    pid = up_and_killed(stage)
    stage.settings["port"] = stage.port
    stage.up()
    assert stage.ready("a-0")["a-0"] != pid
    assert not alive(pid)
    stage.kill()
    assert sorted(stop_leftovers(stage.layout)) == ["a-0", "gateway"]
    assert stage.running() == []


def test_a_stopped_supervisor_ends_a_reload_with_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from nemotron_ops.supervisor.control import client

    monkeypatch.setattr(client, "TIMEOUT_S", 1.0)
    stage.configure()
    process = stage.up()
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(NemotronOpsError, match="has not answered"):
            client.request(stage.layout, "reload", timeout_s=None)
    finally:
        process.send_signal(signal.SIGCONT)


def test_deaths_of_a_ready_engine_end_no_service_and_show_no_text_of_its_log(stage: Stage) -> None:
    stage.settings["exit_on_failed"] = True
    said = "error: invalid argument: --said-by-a-client"
    stage.configure(stage.fake("a-0", "--say", said, "--die-after-s", "0.2"))
    process = stage.up()
    stage.until(lambda: stage.one("a-0")["restarts"] > 2 * stage.fake("a-0").restart.max_restarts)
    assert process.poll() is None
    assert stage.events("giving-up") == stage.events("failed") == []
    assert not any("said-by-a-client" in e["message"] for e in stage.ask("events", count=1000)["events"])
    assert "said-by-a-client" not in str(stage.ask("snapshot"))
