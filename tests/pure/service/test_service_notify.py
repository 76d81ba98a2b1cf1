"""What the service manager is told, and when."""

from __future__ import annotations

import socket
from pathlib import Path

from nemotron_ops.service.notify import (
    EXTEND_PERIOD_S,
    Notifier,
    Said,
    Seen,
    going_on,
    listen_fds,
    reload_begins,
    reload_ended,
    told,
    watchdog_period_s,
)

EXTEND = "EXTEND_TIMEOUT_USEC=120000000"


def loading(progress: float | None, name: str = "30b-0") -> Seen:
    return Seen(name=name, state="starting", load_progress=progress)


READY = Seen(name="30b-0", state="ready")


def test_ready_is_said_once_and_only_when_nothing_loads_any_more() -> None:
    said, lines = told(Said(), [loading(0.4), Seen(name="4b-0", state="ready")])
    assert "READY=1" not in lines
    said, lines = told(said, [READY, Seen(name="4b-0", state="ready")])
    assert "READY=1" in lines
    _, lines = told(said, [READY, Seen(name="4b-0", state="ready")])
    assert lines == ()


def test_any_sign_that_a_load_moves_buys_time_but_not_every_one_is_told() -> None:
    """Also where no byte is read any more: kernels being compiled, a warm-up."""
    said, _ = told(Said(), [loading(0.99)])
    said, first = going_on(said, 100.0)
    said, at_once = going_on(said, 100.2)
    said, later = going_on(said, 100.0 + EXTEND_PERIOD_S)
    assert (first, at_once, later) == ((EXTEND,), (), (EXTEND,))


def test_a_service_that_is_up_asks_for_no_time_for_that_would_put_off_its_watchdog() -> None:
    said, _ = told(Said(), [READY])
    assert going_on(said, 100.0)[1] == ()
    _, lines = told(said, [loading(0.1)])
    assert EXTEND not in lines


def test_work_before_the_load_says_what_it_is_and_buys_time() -> None:
    said, lines = going_on(Said(), 100.0, status="after a power cut: check a.gguf 40 %")
    assert lines == ("STATUS=after a power cut: check a.gguf 40 %", EXTEND)
    assert told(said, [loading(0.1)])[1][0] == "STATUS=0 of 1 ready; loading 30b-0 10 %"


def test_a_reload_is_announced_buys_time_while_it_moves_and_ends_ready() -> None:
    said, _ = told(Said(), [READY])
    said, begun = reload_begins(said, 12.5)
    assert begun == ("RELOADING=1", "MONOTONIC_USEC=12500000")
    said, moving = going_on(said, 20.0)
    assert moving == (EXTEND,)
    said, ended = reload_ended(said)
    assert ended == ("READY=1",)
    assert going_on(said, 40.0)[1] == ()


def test_a_reload_during_the_first_load_does_not_make_the_service_ready() -> None:
    said, _ = told(Said(), [loading(0.1)])
    said, begun = reload_begins(said, 12.5)
    said, ended = reload_ended(said)
    assert (begun, ended) == ((), ())
    assert "READY=1" in told(said, [READY])[1]


def test_a_state_that_changes_is_progress_too() -> None:
    said, _ = told(Said(), [loading(None)])
    _, lines = told(said, [Seen(name="30b-0", state="backoff", reason="out of device memory")])
    assert "STATUS=0 of 1 ready; backoff 30b-0: out of device memory" in lines
    assert EXTEND in lines


def test_on_demand_models_do_not_hold_the_start_up() -> None:
    assert "READY=1" in told(Said(), [Seen(name="30b-0", state="stopped")])[1]


def test_a_service_whose_models_have_all_failed_is_not_up() -> None:
    failed = Seen(name="4b-0", state="failed", reason="missing file")
    assert "READY=1" not in told(Said(), [failed])[1]
    assert "READY=1" in told(Said(), [failed, READY])[1]
    assert "READY=1" not in told(Said(), [])[1]


def test_a_reason_of_several_lines_cannot_forge_a_message() -> None:
    _, lines = told(Said(), [Seen(name="a", state="failed", reason="x\nREADY=1")])
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
