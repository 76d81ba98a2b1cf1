"""Supervisor, gateway and llama-server together: crashes, changes and restarts under requests, with nothing lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.policy import Lifecycle
from tests.stages.serving import HEALTH, SUM, Serving
from tests.stages.supervisor import alive

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure("moe", tmp_path_factory.mktemp("models"))


@pytest.fixture
def serving(tmp_path: Path, llama_bin: Path, model: Path) -> Iterator[Serving]:
    stage = Serving(tmp_path, llama_bin / "llama-server", model)
    try:
        yield stage
    finally:
        stage.clear()


class Clients:
    """Threads that ask the same question again and again until the block ends; every answer is checked."""

    def __init__(self, serving: Serving, count: int = 2) -> None:
        self.serving, self.answers, self.wrong = serving, 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                said = self.serving.chat()["choices"][0]["message"]["content"]
                assert said == "2 + 2 = 4.", said
                self.answers += 1
            except (AssertionError, httpx.HTTPError, KeyError) as exc:
                self.wrong.append(repr(exc))
            self._stop.wait(0.02)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_killed_supervisor_cuts_no_stream_and_reloads_no_model(serving: Serving) -> None:
    serving.configure(serving.real("a-0", ctx_size=65536))
    serving.up()
    pids = serving.ready("a-0")
    words = serving.stream(max_tokens=5000)
    begun = [next(words) for _ in range(20)]
    serving.kill()
    serving.up()
    rest = list(words)
    assert len(begun) + len(rest) > 1000
    assert serving.ready("a-0") == pids
    assert serving.chat()["choices"][0]["message"]["content"] == "2 + 2 = 4."


def test_an_upgrade_in_place_cuts_no_stream_and_refuses_nobody(serving: Serving) -> None:
    serving.configure(serving.real("a-0", ctx_size=65536))
    serving.up()
    pids = serving.ready("a-0")
    words = serving.stream(max_tokens=5000)
    next(words)
    with Clients(serving, 1) as clients:
        began = serving.events("supervisor-started")[0]["time_s"]
        serving.ask("reload", exec=True)
        serving.until(lambda: serving.started_since(began))
        serving.until(lambda: clients.answers > 5)
    assert sum(1 for _ in words) > 1000
    assert clients.wrong == []
    assert serving.ready("a-0") == pids


def test_a_change_of_settings_under_load_loses_no_request(serving: Serving) -> None:
    serving.configure(serving.real("a-0"))
    serving.up()
    serving.ready("a-0")
    with Clients(serving) as clients:
        for size in (2048, 4096):
            serving.until(lambda: clients.answers > 2)
            serving.configure(serving.real("a-0", ctx_size=size + 256))
            assert serving.ask("reload")["replaced"] == ["a-0"]
        before = clients.answers
        serving.until(lambda: clients.answers > before + 2)
    assert clients.wrong == []


def test_a_strict_change_compares_reasoning_tools_and_speed_with_the_old_process(serving: Serving) -> None:
    serving.configure(serving.real("a-0"))
    serving.up()
    serving.ready("a-0")
    serving.configure(serving.real("a-0", ctx_size=8192))
    assert serving.ask("reload", strict=True)["replaced"] == ["a-0"]
    unthinking = serving.real("a-0")
    serving.configure(replace(unthinking, argv=(*unthinking.argv, "--reasoning", "off")))
    failed = serving.ask("reload", strict=True)["failed"]
    assert "reasoning is no longer split from the answer" in failed["a-0"]
    assert serving.chat()["choices"][0]["message"]["reasoning_content"]


def test_a_restart_and_a_swap_hold_requests_instead_of_refusing_them(serving: Serving) -> None:
    serving.configure(serving.real("a-0", memory_bytes={"Host": 8}), capacity_bytes={"Host": 10})
    serving.up()
    serving.ready("a-0")
    with Clients(serving) as clients:
        pid = serving.one("a-0")["pid"]
        serving.ask("restart", names=["a-0"])
        serving.until(lambda: serving.one("a-0")["pid"] not in (None, pid))
        serving.configure(serving.real("a-0", ctx_size=2048, memory_bytes={"Host": 8}), capacity_bytes={"Host": 10})
        assert serving.ask("reload")["replaced"] == ["a-0"]
        before = clients.answers
        serving.until(lambda: clients.answers > before + 2)
    assert clients.wrong == []


def test_a_killed_engine_is_back_and_requests_without_a_first_byte_are_answered(serving: Serving) -> None:
    serving.configure(serving.real("a-0"))
    serving.up()
    pid = serving.ready("a-0")["a-0"]
    with Clients(serving) as clients:
        serving.until(lambda: clients.answers > 3)
        os.kill(pid, signal.SIGKILL)
        serving.until(lambda: not alive(pid))
        before = clients.answers
        serving.until(lambda: clients.answers > before + 3)
    assert serving.ready("a-0")["a-0"] != pid
    assert clients.wrong == []


def test_a_request_wakes_a_model_waits_for_it_and_it_goes_to_sleep_again(serving: Serving) -> None:
    serving.configure(serving.real("a-0", lifecycle=Lifecycle(on_demand=True, ttl_s=1.0)))
    serving.up()
    assert serving.one("a-0")["state"] == "stopped"
    for _ in range(2):
        assert serving.chat()["choices"][0]["message"]["content"] == "2 + 2 = 4."
        serving.until(lambda: serving.one("a-0")["state"] == "stopped")


def test_the_least_recently_used_model_makes_room_for_the_one_that_is_asked_for(serving: Serving) -> None:
    both = [serving.real(n, memory_bytes={"Host": 6}, lifecycle=Lifecycle(on_demand=True)) for n in ("a-0", "b-0")]
    serving.configure(*both, capacity_bytes={"Host": 10})
    serving.up()
    for turn in ("a", "b", "a"):
        assert serving.chat(turn)["choices"][0]["message"]["content"] == "2 + 2 = 4."
        other = "b-0" if turn == "a" else "a-0"
        assert serving.one(f"{turn}-0")["state"] == "ready"
        assert serving.one(other)["state"] == "stopped"


def test_a_planned_restart_keeps_what_slots_had_evaluated(serving: Serving) -> None:
    serving.configure(serving.real("a-0"))
    serving.up()
    pid = serving.ready("a-0")["a-0"]
    first = serving.chat()
    serving.ask("restart", names=["a-0"])
    serving.until(lambda: serving.one("a-0")["pid"] not in (None, pid))
    serving.ready("a-0")
    assert serving.events("slots-restored")
    message = first["choices"][0]["message"]
    longer = [*SUM, {k: message[k] for k in ("role", "content", "reasoning_content")}, *SUM]
    cold = serving.chat(messages=[{"role": "user", "content": "Name a colour."}])
    warm = serving.chat(messages=longer)
    assert cold["timings"]["cache_n"] < warm["timings"]["cache_n"]
    assert not list((serving.layout.state / "slots" / "a-0").glob("*.slot"))


def test_a_wedged_engine_is_found_although_its_health_says_ok(serving: Serving) -> None:
    quick = replace(HEALTH, wedge_s=3.0, probe_timeout_s=1.0, stop_s=1.0)
    serving.configure(serving.real("a-0", health=quick))
    serving.up()
    pid = serving.ready("a-0")["a-0"]
    os.kill(pid, signal.SIGSTOP)
    serving.until(lambda: not alive(pid))
    serving.ready("a-0")
    assert serving.chat()["choices"][0]["message"]["content"] == "2 + 2 = 4."


def test_stopping_with_a_stream_in_flight_drains_it_and_ends_in_order(serving: Serving) -> None:
    serving.configure(serving.real("a-0", ctx_size=65536))
    supervisor = serving.up()
    serving.ready("a-0")
    words = serving.stream(max_tokens=2000)
    next(words)
    supervisor.send_signal(signal.SIGTERM)
    assert sum(1 for _ in words) > 500
    assert supervisor.wait(60) == 0
    assert serving.running() == []
