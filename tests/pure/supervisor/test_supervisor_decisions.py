"""Decisions of the supervisor that need no process: room, order, liveness, load progress, changes, canaries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemotron_ops.engine.health import Activity
from nemotron_ops.errors import EngineError, RecipeError
from nemotron_ops.policy import GIB, Health, Lifecycle, Restart
from nemotron_ops.processes.oom import kills
from nemotron_ops.supervisor import snapshot, spec
from nemotron_ops.supervisor.control.verbs import url
from nemotron_ops.supervisor.fleet.canary import Observed, failures
from nemotron_ops.supervisor.fleet.changes import check, diff
from nemotron_ops.supervisor.fleet.seats import Seat, admit
from nemotron_ops.supervisor.instance import slot_files
from nemotron_ops.supervisor.instance.liveness import Pulse, Verdict, answered, judge
from nemotron_ops.supervisor.instance.loading import Look, mark, moved, share
from nemotron_ops.supervisor.instance.shrink import can_shrink, shrunk
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State
from nemotron_ops.supervisor.spec import Config, InstanceSpec

GPU = {"CUDA0": 24 * GIB}
HEALTH = Health(wedge_s=100)


def seat(name: str, gib: int = 10, **more: object) -> Seat:
    return Seat(id=name, memory_bytes={"CUDA0": gib * GIB}, **more)  # type: ignore[arg-type]


def instance(name: str, *words: str) -> InstanceSpec:
    return InstanceSpec(name=name, model="m", argv=("llama-server", *words))


def config(*specs: InstanceSpec) -> Config:
    return Config(models=(ModelView(name="m", names=("m",)),), instances=specs)


@pytest.mark.parametrize(
    ("words", "unified"),
    [
        ((), False), (("--kv-unified",), True), (("-kvu",), True), (("--kv-unified", "-no-kvu"), False),
        (("--no-kv-unified", "--kv-unified"), True),
    ],
)  # fmt: skip
def test_the_last_word_says_whether_slots_share_a_context(words: tuple[str, ...], unified: bool) -> None:
    assert instance("a", "-c", "1024", *words).kv_unified is unified


def test_a_snapshot_of_another_version_is_read() -> None:
    whole = Snapshot(instances=(InstanceView(name="a", model="m", state=State.READY, socket="", api_key_file=""),))
    value = snapshot.to_json(whole)
    assert snapshot.from_json(value) == whole
    old = {k: v for k, v in value["instances"][0].items() if k not in ("kv_unified", "planned_bytes", "used_bytes")}
    assert snapshot.from_json({**value, "instances": [{**old, "of_tomorrow": 1}]}) == whole


# ---- room


def test_what_fits_starts_and_what_does_not_waits_at_boot() -> None:
    plan = admit([seat("a"), seat("b"), seat("c")], [], GPU)
    assert plan.start == ("a", "b")
    assert plan.wait == {"c": "waits for memory: needs 10.0 GiB on CUDA0, 4.0 GiB of 24.0 GiB free"}
    assert plan.evict == ()


def test_a_request_pushes_out_the_least_recently_used_idle_one() -> None:
    seated = [seat("new", idle=True, last_used=9.0), seat("old", idle=True, last_used=1.0)]
    plan = admit([seat("c", pressing=True)], seated, GPU)
    assert (plan.start, plan.evict) == ((), ("old",))
    assert admit([seat("c", pressing=True)], seated[:1], GPU).start == ("c",)


def test_busy_and_pinned_ones_are_never_pushed_out() -> None:
    seated = [seat("busy", idle=False), seat("pinned", idle=True, pinned=True)]
    plan = admit([seat("c", pressing=True)], seated, GPU)
    assert plan.evict == ()
    assert "c" in plan.wait


def test_nobody_is_pushed_out_in_vain() -> None:
    seated = [seat("idle", 4, idle=True), seat("busy", 18, idle=False)]
    assert admit([seat("c", 12, pressing=True)], seated, GPU).evict == ()


def test_one_on_another_device_is_left_alone() -> None:
    other = Seat(id="cpu", memory_bytes={"Host": 30 * GIB}, idle=True)
    plan = admit([seat("c", pressing=True)], [other, seat("a", 20, idle=True, last_used=5.0)], GPU)
    assert plan.evict == ("a",)


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    plan = admit([seat("big", 40), seat("small")], [], GPU)
    assert plan.start == ("small",)
    assert plan.refuse == {"big": "needs 40.0 GiB on CUDA0, 24.0 GiB of 24.0 GiB free"}
    assert "c" in admit([seat("c", 20)], [seat("pinned", pinned=True)], GPU).refuse


def test_start_order_waits_for_what_comes_before_to_settle() -> None:
    first, second = seat("first", 1, order=0, settled=False), seat("second", 1, order=1, settled=False)
    plan = admit([first, second], [], {})
    assert (plan.start, plan.wait) == (("first",), {"second": "starts after first"})
    assert admit([second], [replace(first, settled=True)], {}).start == ("second",)


# ---- liveness


def busy(mark: float) -> Activity:
    return Activity(busy=1, mark=(mark,))


def test_a_silent_half_hour_of_prompt_that_moves_is_alive() -> None:
    pulse = Pulse(at=0.0)
    for minute in range(1, 31):
        pulse, verdict = judge(pulse, busy(minute), now=minute * 60.0, health=HEALTH)
        assert verdict is Verdict.ALIVE


def test_busy_slots_without_progress_become_suspect_then_stuck() -> None:
    pulse, _ = judge(Pulse(at=0.0), busy(1), now=1.0, health=HEALTH)
    seen = []
    for now in (10.0, 60.0, 102.0):
        pulse, verdict = judge(pulse, busy(1), now=now, health=HEALTH)
        seen.append(verdict)
    assert seen == [Verdict.QUIET, Verdict.SUSPECT, Verdict.STUCK]
    assert "no token moved for 101 s" in pulse.why


def test_an_unanswered_probe_is_no_reason_but_many_are() -> None:
    pulse, verdict = judge(Pulse(at=0.0), None, now=5.0, health=HEALTH)
    assert verdict is Verdict.QUIET
    pulse, verdict = judge(pulse, Activity(), now=20.0, health=HEALTH)
    assert verdict is Verdict.ALIVE
    assert judge(pulse, None, now=121.0, health=HEALTH)[1] is Verdict.STUCK


def test_a_queue_that_waits_without_a_busy_slot_is_no_idleness() -> None:
    waiting = Activity(busy=0, deferred=3, mark=(1.0,))
    pulse, _ = judge(Pulse(at=0.0), waiting, now=1.0, health=HEALTH)
    assert judge(pulse, waiting, now=102.0, health=HEALTH)[1] is Verdict.STUCK


def test_an_answered_canary_buys_time_but_keeps_the_mark() -> None:
    pulse = answered(Pulse(at=0.0, mark=(1.0,)), now=50.0)
    assert judge(pulse, busy(1), now=60.0, health=HEALTH)[1] is Verdict.QUIET


# ---- loading


@pytest.mark.parametrize("field", ["read_bytes", "rss_bytes", "log_bytes"])
def test_any_growth_is_a_sign_that_a_load_goes_on(field: str) -> None:
    assert moved(Look(), replace(Look(), **{field: 1}))
    assert not moved(Look(**{field: 1}), Look(**{field: 1}))


def test_computing_counts_and_idling_does_not() -> None:
    assert moved(Look(cpu_s=1.0), Look(cpu_s=2.0))
    assert not moved(Look(cpu_s=1.0), Look(cpu_s=1.01))


def test_a_load_that_hangs_does_not_move_by_answering_that_it_loads() -> None:
    before = Look(rss_bytes=9)
    for n in range(1000):
        now = Look(cpu_s=n * 0.01, rss_bytes=9 - n % 2)
        assert not moved(before, now)
        before = mark(before, now)
    assert moved(before, replace(before, rss_bytes=10))


def test_load_progress_is_never_all_before_ready_and_unknown_without_a_size() -> None:
    assert share(Look(read_bytes=50, rss_bytes=25), 100) == 0.5
    assert share(Look(rss_bytes=500), 100) == 0.99
    assert share(Look(rss_bytes=500), 0) is None


# ---- changes


def test_only_what_differs_is_replaced() -> None:
    running = {s.name: s for s in (instance("a"), instance("b", "-c", "1"), instance("gone"))}
    new = config(replace(instance("a"), restart=Restart(max_restarts=9)), instance("b", "-c", "2"), instance("c"))
    changes = diff(running, new)
    assert (changes.keep, changes.replace, changes.add, changes.remove) == (("a",), ("b",), ("c",), ("gone",))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (config(instance("a"), instance("a")), "two instances"),
        (config(replace(instance("a"), model="x")), "serves no model"),
        (config(InstanceSpec(name="a", model="m", argv=())), "no command"),
        (config(instance("../a")), "not a valid instance name"),
        (config(instance("a~2")), "not a valid instance name"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(bad: Config, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check(bad)


def test_a_record_survives_the_way_through_json() -> None:
    full = replace(instance("a", "-c", "1"), lifecycle=Lifecycle(devices=("CUDA0",), ttl_s=5.0), files=("/m",))
    old = Record(id="a", launch="x", pid=1, started="s", spec=full, extra={"fd": 3})
    assert record.from_json(record.to_json(old)) == old
    assert record.from_json({**record.to_json(old), "field_of_a_later_version": 1}) == old
    assert spec.from_json(spec.to_json(full)).fingerprint == full.fingerprint


def test_a_record_of_a_later_version_can_still_be_read() -> None:
    value = spec.to_json(instance("a"))
    later = {**value, "new_key": 1, "restart": {**value["restart"], "new": 1}, "health": {**value["health"], "new": 1}}
    assert spec.from_json(later) == instance("a")


@pytest.mark.parametrize(
    ("tokens", "times", "left"), [(16384, 1, 8192), (16384, 9, 2048), (1024, 3, 1024), (3000, 1, 2048)]
)
def test_context_is_halved_down_to_a_floor(tokens: int, times: int, left: int) -> None:
    argv = ("llama-server", "--ctx-size", str(tokens), "--parallel", "2")
    assert shrunk(argv, times) == ("llama-server", "--ctx-size", str(left), "--parallel", "2")
    assert not can_shrink(shrunk(argv, 20), 0)


def test_a_command_without_a_context_cannot_shrink() -> None:
    assert not can_shrink(("llama-server", "--model", "m"), 0)


# ---- canaries, slots, memory deaths, addresses


def test_a_canary_fails_for_what_is_lost_and_for_nothing_else() -> None:
    old = Observed(tokens=20, reasoning=True, tool_call=True, tokens_per_s=50)
    assert failures(Observed(tokens=20, reasoning=True, tool_call=True, tokens_per_s=30), old) == []
    assert len(failures(Observed(tokens=0, tokens_per_s=10), old)) == 4
    assert failures(Observed(tokens=1), None) == []
    assert failures(Observed(tokens=0), None) == ["it made no token"]


def test_slots_of_another_build_or_setting_are_not_restored() -> None:
    assert slot_files.check({"fingerprint": "f", "slots": [{"slot": 0}]}, fingerprint="f") == [{"slot": 0}]
    with pytest.raises(EngineError, match="another build"):
        slot_files.check({"fingerprint": "f", "slots": []}, fingerprint="g")


def test_the_kernels_lines_about_memory_name_the_pid() -> None:
    line = "3,1234,5678,-;Out of memory: Killed process 4711 (llama-server) total-vm:1kB, anon-rss:1kB"
    group = "3,1,2,-;Memory cgroup out of memory: Killed process 4711 (llama-server) total-vm:1kB"
    assert kills(line, 4711)
    assert kills(group, 4711)
    assert not kills(line, 471)


@pytest.mark.parametrize(
    ("host", "said"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("gpu", "gpu")],
)
def test_the_endpoint_is_an_address_that_a_client_can_use(host: str, said: str) -> None:
    assert url("http", host, 8001) == f"http://{said}:8001/v1"
