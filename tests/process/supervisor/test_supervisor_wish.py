"""What is to be served changes while it is served: kept, counted once it runs, and lost at no kill. About 15 s."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import ControlError
from tests.stages.supervisor import Stage, staged


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        made.configure(*(made.fake(name) for name in ("a-0", "b-0", "c-0")))
        made.settings["asked"] = []
        yield made


def up(stage: Stage, *asked: str) -> None:
    stage.settings["asked"] = list(asked)
    stage.up(wait=False)
    stage.until(lambda: stage.ask("status")["ready"])
    stage.port = int(stage.ask("status")["endpoint"]["port"])


def add(stage: Stage, name: str, *extra: str) -> dict[str, Any]:
    return stage.ask("wish", change={"op": "add", "model": {"target": name, "extra": list(extra)}})


def remove(stage: Stage, name: str) -> dict[str, Any]:
    return stage.ask("wish", change={"op": "remove", "name": name})


def change(stage: Stage, name: str, *extra: str) -> dict[str, Any]:
    return stage.ask("wish", change={"op": "change", "name": name, "model": {"extra": list(extra)}})


def wished(stage: Stage) -> list[str]:
    return [m["target"] for m in stage.ask("wish")["models"]]


def on_disk(stage: Stage) -> list[dict[str, Any]]:
    models = json.loads((stage.layout.state / "wish.json").read_text())["models"]
    assert isinstance(models, list)
    return models


def test_a_supervisor_starts_without_a_model_and_gets_one(stage: Stage) -> None:
    up(stage)
    assert stage.connect()  # the gateway runs
    assert stage.ask("snapshot")["snapshot"]["serial"] == 1
    assert add(stage, "a")["added"] == ["a-0"]
    stage.ready("a-0")
    assert stage.ask("status")["wish"] == [{"target": "a", "name": "a"}] == on_disk(stage)


def test_the_last_model_can_be_removed_and_the_endpoint_stays(stage: Stage) -> None:
    up(stage, "a")
    assert remove(stage, "a")["removed"] == ["a-0"]
    status = stage.ask("status")
    assert (status["instances"], status["models"], status["ready"]) == ([], [], True)
    assert stage.connect()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_change_survives_a_restart_with_the_same_words(stage: Stage, how: signal.Signals) -> None:
    up(stage, "a", "b")
    add(stage, "c", "--words", "six")
    remove(stage, "b")
    assert stage.process
    os.kill(stage.process.pid, how)
    stage.process.wait()
    up(stage, "a", "b")
    assert wished(stage) == ["a", "c"]
    stage.ready("a-0", "c-0")
    said = stage.said()
    assert "also served, by `add` since: c" in said
    assert "not served, by `remove` since: b" in said


def test_other_words_set_the_wish_anew_and_say_what_goes(stage: Stage) -> None:
    up(stage, "a")
    add(stage, "c")
    stage.down()
    up(stage, "b")
    assert wished(stage) == ["b"]
    assert "no longer served: a, c" in stage.said()


def test_two_writers_at_once_lose_no_change(stage: Stage) -> None:
    up(stage)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: add(stage, name), ("a", "b", "c")))
    assert sorted(wished(stage)) == ["a", "b", "c"] == sorted(m["target"] for m in on_disk(stage))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: remove(stage, name), ("a", "b", "c")))
    assert wished(stage) == []


def test_the_same_model_added_twice_is_one_change(stage: Stage) -> None:
    up(stage)
    add(stage, "a")
    pid = stage.ready("a-0")
    assert add(stage, "a")["kept"] == ["a-0"]
    assert stage.ready("a-0") == pid
    with pytest.raises(ControlError, match="served already"):
        add(stage, "a", "--mute")


def test_a_replacement_that_fails_leaves_instance_and_wish_as_they_were(stage: Stage) -> None:
    up(stage, "a")
    pid = stage.ready("a-0")
    answer = change(stage, "a", "--die", "1")
    assert (answer["ok"], list(answer["failed"])) == (False, ["a-0"])
    assert stage.ready("a-0") == pid
    assert on_disk(stage) == [{"target": "a", "name": "a"}] == answer["models"]


def test_a_change_that_makes_no_sense_changes_nothing(stage: Stage) -> None:
    up(stage, "a")
    before = (on_disk(stage), stage.ready("a-0"))
    for wrong in (
        {"op": "add", "model": {"target": "none-such"}},
        {"op": "add", "model": {"target": "b", "colour": "red"}},
        {"op": "remove", "name": "b"},
        {"op": "paint"},
        {},
        "remove a",
    ):
        with pytest.raises(ControlError):
            stage.ask("wish", change=wrong)
    assert (on_disk(stage), stage.ready("a-0")) == before


def test_a_dry_run_tells_the_changes_and_makes_none(stage: Stage) -> None:
    up(stage, "a")
    told = stage.ask("wish", change={"op": "add", "model": {"target": "b"}}, dry_run=True)
    assert (told["dry_run"], told["added"], told["kept"]) == (True, ["b-0"], ["a-0"])
    assert wished(stage) == ["a"]
    assert list(stage.instances()) == ["a-0"]


def test_a_kill_in_the_middle_of_a_change_leaves_the_wish_before_it(stage: Stage) -> None:
    up(stage, "a")
    pid = stage.ready("a-0")
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change, stage, "a", "--load-s", "600")
        stage.until(lambda: "a-0~2" in stage.instances() and (stage.knobs("a-0") / "loading").exists())
        stage.kill()
        with pytest.raises(ControlError):
            changing.result()
    stage.up(wait=False)
    stage.until(lambda: list(stage.instances()) == ["a-0"])
    (stage.knobs("a-0") / "loading").unlink()  # of the new process, which had the same knobs
    assert stage.ready("a-0") == pid
    assert on_disk(stage) == [{"target": "a", "name": "a"}]


def test_a_model_that_is_added_again_starts_although_it_was_stopped_by_hand(stage: Stage) -> None:
    up(stage, "a", "b")
    stage.ready("a-0", "b-0")
    stage.ask("stop", names=["b"])
    remove(stage, "b")
    add(stage, "b")
    stage.ready("b-0")


def test_rollback_takes_a_change_of_the_wish_back(stage: Stage) -> None:
    up(stage, "a")
    add(stage, "b")
    stage.ready("b-0")
    assert stage.ask("rollback")["removed"] == ["b-0"]
    assert [m["target"] for m in on_disk(stage)] == ["a"] == wished(stage)


def test_an_added_model_that_cannot_run_does_not_end_the_endpoint(stage: Stage) -> None:
    stage.settings["exit_on_failed"] = True
    up(stage, "a")
    remove(stage, "a")
    add(stage, "b", "--die", "1")
    stage.until(lambda: stage.one("b-0")["state"] == "failed")
    assert stage.connect()
    assert remove(stage, "b")["ok"]


def test_a_damaged_wish_is_told_and_the_last_good_one_is_served(stage: Stage) -> None:
    up(stage, "a")
    add(stage, "b")
    stage.down()
    file = stage.layout.state / "wish.json"
    file.write_bytes(file.read_bytes()[:40])
    up(stage, "a")
    assert wished(stage) == ["a", "b"]
    assert f"cannot read {file}: not valid JSON" in stage.said()
    assert file.with_name("wish.json.damaged").exists()


def test_a_wish_file_damaged_while_it_is_served_is_told_at_the_next_change(stage: Stage) -> None:
    up(stage, "a")
    (stage.layout.state / "wish.json").write_text('{"version": 1, "models": [{"target": 7}]}')
    assert stage.ask("reload")["kept"] == ["a-0"]
    assert "models[0].target: expected a string" in stage.said()
    add(stage, "b")
    assert [m["target"] for m in on_disk(stage)] == ["a", "b"]


def test_a_reload_reads_a_wish_that_was_edited(stage: Stage) -> None:
    up(stage, "a")
    file = stage.layout.state / "wish.json"
    value = json.loads(file.read_text())
    file.write_text(json.dumps(value | {"models": [{"target": "a", "name": "a"}, {"target": "c"}]}))
    assert stage.ask("reload")["added"] == ["c-0"]


def test_a_full_disk_refuses_a_change_before_anything_runs(stage: Stage) -> None:
    up(stage, "a")
    (stage.layout.state / "wish.next.json").mkdir()  # what cannot be replaced by a file
    with pytest.raises(ControlError, match="cannot write"):
        add(stage, "b")
    assert list(stage.instances()) == ["a-0"]
    assert wished(stage) == ["a"]


def test_a_supervisor_without_a_wish_refuses_changes(stage: Stage) -> None:
    del stage.settings["asked"]
    stage.up()
    with pytest.raises(ControlError, match="keeps no wish"):
        add(stage, "b")
