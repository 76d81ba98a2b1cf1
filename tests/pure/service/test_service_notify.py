"""What is sent to the service manager, and when."""

from __future__ import annotations

import socket
from pathlib import Path

from nemotron_ops.service.notify import (
    EXTEND_PERIOD_S,
    InstanceState,
    Notifier,
    NotifyState,
    listen_fds,
    on_instances,
    on_progress,
    on_reload,
    on_reload_end,
    watchdog_period_s,
)

EXTEND = "EXTEND_TIMEOUT_USEC=120000000"


def loading(progress: float | None, name: str = "30b-0") -> InstanceState:
    return InstanceState(name=name, state="starting", load_progress=progress)


READY = InstanceState(name="30b-0", state="ready")


def test_ready_is_said_once_and_only_when_nothing_loads_any_more() -> None:
    sent, lines = on_instances(NotifyState(), [loading(0.4), InstanceState(name="4b-0", state="ready")])
    assert "READY=1" not in lines
    sent, lines = on_instances(sent, [READY, InstanceState(name="4b-0", state="ready")])
    assert "READY=1" in lines
    _, lines = on_instances(sent, [READY, InstanceState(name="4b-0", state="ready")])
    assert lines == ()


def test_any_sign_that_a_load_moves_buys_time_but_not_every_one_is_on_instances() -> None:
    """Also after the last byte is read: while kernels compile, or a warm-up runs."""
    sent, _ = on_instances(NotifyState(), [loading(0.99)])
    sent, first = on_progress(sent, 100.0)
    sent, at_once = on_progress(sent, 100.2)
    sent, later = on_progress(sent, 100.0 + EXTEND_PERIOD_S)
    assert (first, at_once, later) == ((EXTEND,), (), (EXTEND,))


def test_a_service_that_is_up_asks_for_no_time_for_that_would_put_off_its_watchdog() -> None:
    sent, _ = on_instances(NotifyState(), [READY])
    assert on_progress(sent, 100.0)[1] == ()
    _, lines = on_instances(sent, [loading(0.1)])
    assert EXTEND not in lines


def test_work_before_the_load_says_what_it_is_and_buys_time() -> None:
    sent, lines = on_progress(NotifyState(), 100.0, status="after a power cut: check a.gguf 40 %")
    assert lines == ("STATUS=after a power cut: check a.gguf 40 %", EXTEND)
    assert on_instances(sent, [loading(0.1)])[1][0] == "STATUS=0 of 1 ready; loading 30b-0 10 %"


def test_a_reload_is_announced_buys_time_while_it_moves_and_ends_ready() -> None:
    sent, _ = on_instances(NotifyState(), [READY])
    sent, begun = on_reload(sent, 12.5)
    assert begun == ("RELOADING=1", "MONOTONIC_USEC=12500000")
    sent, moving = on_progress(sent, 20.0)
    assert moving == (EXTEND,)
    sent, ended = on_reload_end(sent)
    assert ended == ("READY=1",)
    assert on_progress(sent, 40.0)[1] == ()


def test_a_reload_during_the_first_load_does_not_make_the_service_ready() -> None:
    sent, _ = on_instances(NotifyState(), [loading(0.1)])
    sent, begun = on_reload(sent, 12.5)
    sent, ended = on_reload_end(sent)
    assert (begun, ended) == ((), ())
    assert "READY=1" in on_instances(sent, [READY])[1]


def test_a_state_that_changes_is_progress_too() -> None:
    sent, _ = on_instances(NotifyState(), [loading(None)])
    _, lines = on_instances(sent, [InstanceState(name="30b-0", state="backoff", reason="out of device memory")])
    assert "STATUS=0 of 1 ready; backoff 30b-0: out of device memory" in lines
    assert EXTEND in lines


def test_on_demand_models_do_not_hold_the_start_up() -> None:
    assert "READY=1" in on_instances(NotifyState(), [InstanceState(name="30b-0", state="stopped")])[1]


def test_a_service_whose_models_have_all_failed_is_not_up() -> None:
    failed = InstanceState(name="4b-0", state="failed", reason="missing file")
    assert "READY=1" not in on_instances(NotifyState(), [failed])[1]
    assert "READY=1" in on_instances(NotifyState(), [failed, READY])[1]
    assert "READY=1" in on_instances(NotifyState(), [])[1]  # an endpoint without a model is up


def test_a_reason_of_several_lines_cannot_forge_a_message() -> None:
    _, lines = on_instances(NotifyState(), [InstanceState(name="a", state="failed", reason="x\nREADY=1")])
    assert all("\n" not in line for line in lines)


def test_messages_reach_the_socket_as_datagrams(tmp_path: Path) -> None:
    path = tmp_path / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        notifier.instances([READY])
        notifier.alive()
        notifier.reloading(12.5)
        notifier.stopping()
        got = [server.recv(4096).decode() for _ in range(4)]
    assert got[0] == "STATUS=1 of 1 ready\nEXTEND_TIMEOUT_USEC=120000000\nREADY=1"
    assert got[1:] == ["WATCHDOG=1", "RELOADING=1\nMONOTONIC_USEC=12500000", "STOPPING=1\nSTATUS=draining"]


def test_without_a_service_manager_nothing_happens() -> None:
    Notifier({}).instances([READY])
    Notifier({"NOTIFY_SOCKET": "/nowhere/socket"}).alive()


def test_the_watchdog_is_fed_three_times_as_often_as_asked() -> None:
    assert watchdog_period_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=7) == 10.0
    assert watchdog_period_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, pid=7) is None
    assert watchdog_period_s({}, pid=7) is None


def test_sockets_are_known_by_name_and_only_to_whom_they_are_meant_for() -> None:
    env = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:"}
    assert listen_fds(env, pid=7) == {"http": 3, "1": 4}
    assert listen_fds(env, pid=8) == {}
