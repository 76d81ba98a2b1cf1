"""Several instances: start order, one memory budget, on-demand starts, ageing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import ControlError
from nemotron_ops.files import write_json
from nemotron_ops.policy import Lifecycle
from tests.stages.supervisor import QUICK_RESTART, Stage, staged

pytestmark = pytest.mark.process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def order(stage: Stage, kind: str) -> list[str]:
    return [e["instance"] for e in stage.events(kind) if e["instance"] != "gateway"]


def test_instances_start_in_order_and_stop_in_reverse(stage: Stage) -> None:
    first = stage.fake("first-0", "--load-s", "1", "--chatty-load", lifecycle=Lifecycle(start_order=0))
    second = stage.fake("second-0", lifecycle=Lifecycle(start_order=1))
    stage.configure(second, first)
    stage.up()
    stage.ready("first-0", "second-0")
    assert order(stage, "ready") == ["first-0", "second-0"]
    assert stage.down() == 0
    stopped = [line for line in (stage.layout.logs / "events.jsonl").read_text().splitlines() if '"stopped"' in line]
    assert ["second-0" in line for line in stopped] == [True, False]


def test_a_snapshot_says_what_was_planned_for_an_instance_and_what_it_holds(stage: Stage) -> None:
    planned = {"CUDA0": 3 << 30, "host": 1 << 30}
    made = stage.fake("a-0")
    stage.configure(replace(made, memory_bytes=planned, argv=(*made.argv, "--kv-unified")))
    stage.up()
    stage.ready("a-0")

    def view() -> dict[str, Any]:
        return dict(stage.ask("snapshot")["snapshot"]["instances"][0])

    stage.until(lambda: view()["used_bytes"].get("host", 0) > 1 << 20)
    assert view()["planned_bytes"] == planned
    assert view()["kv_unified"]
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: view()["state"] == "stopped")
    assert view()["used_bytes"] == {}


def test_one_that_fails_does_not_hold_up_those_after_it(stage: Stage) -> None:
    first = stage.fake("first-0", "--die", "1", lifecycle=Lifecycle(start_order=0))
    stage.configure(first, stage.fake("second-0", lifecycle=Lifecycle(start_order=1)))
    stage.up()
    stage.ready("second-0")


def test_a_request_starts_a_sleeping_model_once(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", lifecycle=Lifecycle(on_demand=True)))
    stage.up()
    assert (stage.one("a-0")["state"], stage.one("a-0")["wanted"]) == ("stopped", False)
    assert stage.ask("snapshot")["snapshot"]["models"][0]["on_demand"]
    for _ in range(5):
        assert stage.ask("want", model="a")["instances"] == ["a-0"]
    stage.ready("a-0")
    assert order(stage, "starting") == ["a-0"]


def test_an_idle_model_is_unloaded_after_its_time_and_comes_back_by_request(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", lifecycle=Lifecycle(ttl_s=1.0)))
    (stage.knobs("a-0") / "loading").touch()
    stage.inflight(a_0=1)
    stage.up()
    stage.until(lambda: stage.one("a-0")["inflight"] == 1)  # so it is not idle from the moment when it is ready
    (stage.knobs("a-0") / "loading").unlink()
    stage.ready("a-0")
    ready_at = stage.events("ready")[0]["time_s"]
    stage.until(lambda: time.time() - ready_at > 2.5)
    assert stage.one("a-0")["state"] == "ready"
    stage.inflight()
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")
    assert stage.one("a-0")["reason"] == "unloaded: idle for 1 s"
    stage.ask("want", model="a")
    stage.until(lambda: order(stage, "ready") == ["a-0", "a-0"])  # for a second, then it is unloaded again


def test_a_pinned_model_is_not_unloaded(stage: Stage) -> None:
    stage.configure(
        stage.fake("pinned-0", lifecycle=Lifecycle(ttl_s=0.5, pinned=True)),
        stage.fake("b-0", lifecycle=Lifecycle(ttl_s=1.0, start_order=1)),
    )
    stage.up()
    stage.until(lambda: stage.one("b-0")["reason"] == "unloaded: idle for 1 s")
    assert stage.one("pinned-0")["state"] == "ready"


def test_a_request_makes_room_by_unloading_what_was_used_longest_ago(stage: Stage) -> None:
    def sized(name: str, on_demand: bool) -> object:
        return stage.fake(name, memory_bytes={"Host": 4}, lifecycle=Lifecycle(on_demand=on_demand))

    stage.configure(sized("a-0", False), sized("b-0", False), sized("c-0", True), capacity_bytes={"Host": 10})  # type: ignore[arg-type]
    stage.up()
    stage.ready("a-0", "b-0")
    stage.inflight(a_0=1)
    stage.until(lambda: stage.one("a-0")["inflight"] == 1)
    stage.ask("want", model="c")
    stage.ready("c-0")
    assert stage.one("a-0")["state"] == "ready"
    assert (stage.one("b-0")["state"], stage.one("b-0")["reason"]) == ("stopped", "unloaded to make room")
    models = {m["name"]: m for m in stage.ask("snapshot")["snapshot"]["models"]}
    assert models["b"]["on_demand"]


def test_a_request_waits_for_memory_while_everything_is_busy(stage: Stage) -> None:
    stage.configure(
        stage.fake("a-0", memory_bytes={"Host": 8}),
        stage.fake("b-0", memory_bytes={"Host": 8}, lifecycle=Lifecycle(on_demand=True)), capacity_bytes={"Host": 10},
    )  # fmt: skip
    stage.up()
    stage.ready("a-0")
    stage.inflight(a_0=1)
    stage.until(lambda: stage.one("a-0")["inflight"] == 1)
    stage.ask("want", model="b")
    stage.until(lambda: "waits for memory" in stage.one("b-0")["reason"])
    assert stage.one("b-0")["wanted"]
    stage.inflight()
    stage.ready("b-0")
    assert stage.one("a-0")["state"] == "stopped"


def test_what_can_never_fit_fails_with_the_numbers(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", memory_bytes={"Host": 20 << 30}), capacity_bytes={"Host": 10 << 30})
    stage.up()
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert stage.one("a-0")["reason"] == "does not fit: needs 20.0 GiB on Host, 10.0 GiB of 10.0 GiB free"


def test_requests_do_not_hammer_a_model_that_keeps_failing(stage: Stage) -> None:
    slow = replace(QUICK_RESTART, backoff_initial_s=600, backoff_max_s=600)
    stage.configure(stage.fake("a-0", "--die", "1", restart=slow, lifecycle=Lifecycle(on_demand=True)))
    stage.up()
    stage.ask("want", model="a")
    stage.until(lambda: stage.one("a-0")["state"] == "backoff")
    for _ in range(5):
        stage.ask("want", model="a")
    assert order(stage, "starting") == ["a-0"]


def test_a_request_for_a_failed_model_is_told_the_reason(stage: Stage) -> None:
    missing = "gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (No such file or directory)"
    stage.configure(stage.fake("a-0", "--say", missing, "--die", "1", lifecycle=Lifecycle(on_demand=True)))
    stage.up()
    stage.ask("want", model="a")
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    with pytest.raises(ControlError, match=r"the model file /m/x\.gguf is missing"):
        stage.ask("want", model="a")


def test_after_an_unload_the_next_load_waits_until_the_device_has_the_memory_back(stage: Stage) -> None:
    free = stage.folder / "free.json"
    write_json(free, {"GPU": 2})
    stage.settings["free_file"] = str(free)
    stage.configure(
        stage.fake("a-0", memory_bytes={"GPU": 8}),
        stage.fake("b-0", memory_bytes={"GPU": 8}, lifecycle=Lifecycle(on_demand=True)),
        capacity_bytes={"GPU": 10},
    )
    stage.up()
    stage.ready("a-0")
    stage.ask("want", model="b")
    stage.until(lambda: "memory of an unloaded model" in stage.one("b-0")["reason"])
    assert stage.one("b-0")["state"] == "stopped"
    write_json(free, {"GPU": 10})  # whole at once: it is being read
    stage.ready("b-0")
