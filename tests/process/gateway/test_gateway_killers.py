"""Requests that engines die of or get stuck on: how many engines they cost, and what the others see. Three seconds."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nemotron_ops.supervisor.snapshot import ModelView, State
from tests.fakes.calls import body_of, text_in
from tests.fakes.scripted_engine import STREAM_HEAD, Heard, ScriptedEngine, chunk, events, well
from tests.stages.gateway import Answer, Stage, gateway, open_request
from tests.tables.gateway_faults import APIS

pytestmark = pytest.mark.process
CHAT = APIS["chat"]
MODEL = ModelView(name="m", names=("m", "org/m"), queue_wait_s=20.0)
TEXT = "The answer is four."
INFLIGHT = 'nemotron_ops_inflight_requests{{instance="{}"}}'
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("killers"), "--keep-alive-s", "300") as found:
        yield found


class Fleet:
    """Two engines of one model; `poison` in a body makes one die or get stuck, and the supervisor tells of `cause`."""

    def __init__(self, stage: Stage, folder: Path, cause: str) -> None:
        self.stage, self.cause = stage, cause
        self.hit: list[str] = []  # engines, in the order in which they got a poison
        self.go_on = threading.Event()
        self.engines = [ScriptedEngine(name=f"m-{n}", path=folder / f"{n}.sock", play=well).start() for n in range(2)]
        self.pids = iter(range(stage.control.snapshot.serial * 100 + 1, 1 << 30))
        for engine in self.engines:
            engine.play = lambda s, r, name=engine.name: self.play(s, r, name)  # type: ignore[misc]
        stage.control.show(models=(MODEL,), instances=tuple(e.view(pid=next(self.pids)) for e in self.engines))
        stage.settle()

    def play(self, s: socket.socket, request: Heard, name: str) -> None:
        if b"poison" in request.body:
            self.hit.append(name)
            if self.cause == "wedged":
                s.sendall(STREAM_HEAD)
                s.recv(1)  # until the gateway closes
            else:
                self.lose(name)
            return
        well(s, request)

    def lose(self, name: str) -> None:
        """What the supervisor shows of an engine that died: why, and a new process."""
        view = next(i for i in self.stage.control.snapshot.instances if i.name == name)
        reasons = {**view.restart_reasons, self.cause: view.restart_reasons.get(self.cause, 0) + 1}
        self.stage.control.change(name, state=State.BACKOFF, pid=None, restart_reasons=reasons)
        self.stage.control.change(name, state=State.READY, pid=next(self.pids))

    def end_stuck(self, name: str) -> None:
        """What the supervisor shows of an engine that got stuck."""
        self.stage.control.change(name, state=State.STOPPING, draining=True, cut=True, reason="no token moved")
        view = next(i for i in self.stage.control.snapshot.instances if i.name == name)
        self.stage.control.change(
            name, state=State.READY, draining=False, cut=False, reason="", pid=next(self.pids),
            restart_reasons={**view.restart_reasons, "wedged": view.restart_reasons.get("wedged", 0) + 1},
        )  # fmt: skip


@pytest.fixture
def fleet(stage: Stage, tmp_path: Path) -> Iterator[Callable[[str], Fleet]]:
    made: list[Fleet] = []

    def make(cause: str) -> Fleet:
        made.append(Fleet(stage, tmp_path, cause))
        return made[-1]

    yield make
    for found in made:
        found.go_on.set()
        for engine in found.engines:
            engine.stop()


def body(text: str, *, stream: bool = True) -> dict[str, object]:
    return {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.rest())["error"]["code"])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("cause", ["crash", "assertion", "host-memory"])
def test_a_request_that_an_engine_crashes_on_alone_goes_to_no_other_and_comes_in_no_more(
    stage: Stage, fleet: Callable[[str], Fleet], cause: str, stream: bool
) -> None:
    found = fleet(cause)
    poison = body(f"poison {cause} {stream}", stream=stream)
    with open_request(stage, CHAT, poison) as answer:
        assert code_of(answer) == "engine_lost"
    assert len(found.hit) == 1
    with open_request(stage, CHAT, poison) as again:
        assert code_of(again) == "kills_engine"
    assert again.status == 400
    assert len(found.hit) == 1
    with open_request(stage, CHAT, body("hello")) as other:
        assert text_in(other.rest()) == TEXT


def test_a_kill_from_outside_is_no_requests_fault(stage: Stage, fleet: Callable[[str], Fleet]) -> None:
    found = fleet("killed")
    poison = body("poison once")
    found.engines[1].play = well
    stage.prefer("m-0", "m-1")
    with open_request(stage, CHAT, poison) as answer:
        assert text_in(answer.rest()) == TEXT
    assert found.hit == ["m-0"]
    found.engines[0].play = well
    with open_request(stage, CHAT, poison) as again:
        assert text_in(again.rest()) == TEXT


def test_those_that_were_lost_together_go_on_one_by_one_and_only_the_killer_is_refused(
    stage: Stage, fleet: Callable[[str], Fleet], eventually: Eventually
) -> None:
    found = fleet("crash")
    stage.control.show(instances=(found.engines[0].view(pid=next(found.pids)),))
    stage.settle()
    asked = threading.Event()

    def play(s: socket.socket, request: Heard) -> None:
        first = not asked.is_set()
        if b"poison" in request.body:
            found.hit.append("m-0")
            if first:
                found.go_on.wait(60)
                asked.set()
            found.lose("m-0")
        elif first:
            asked.wait(60)  # and is lost with it
        else:
            well(s, request)

    found.engines[0].play = play
    with ExitStack() as opened:
        innocent = opened.enter_context(open_request(stage, CHAT, body("innocent")))
        poison = opened.enter_context(open_request(stage, CHAT, body("poison together")))
        eventually(lambda: len(found.engines[0].heard) == 2)
        found.go_on.set()
        assert text_in(innocent.rest()) == TEXT
        assert code_of(poison) == "engine_lost"
    assert len(found.hit) == 2
    for text, status in (("innocent", 200), ("poison together", 400)):
        with open_request(stage, CHAT, body(text)) as again:
            again.rest()
        assert again.status == status
    eventually(lambda: not stage.control.inflight)


def test_a_request_that_an_engine_got_stuck_on_goes_to_no_other_but_those_beside_it_do(
    stage: Stage, fleet: Callable[[str], Fleet], eventually: Eventually
) -> None:
    found = fleet("wedged")
    stage.prefer("m-0", "m-1")
    half = events("chat")

    def talks_then_stuck(s: socket.socket, request: Heard) -> None:
        if b"poison" in request.body:
            found.play(s, request, "m-0")
        else:
            s.sendall(STREAM_HEAD + b"".join(map(chunk, half[:3])))
            s.recv(1)

    found.engines[0].play = talks_then_stuck
    found.engines[0].slots = 3
    stage.control.change("m-0", slots=3)
    stage.control.change("m-1", slots=1)
    stage.settle()
    with ExitStack() as opened:
        before = opened.enter_context(open_request(stage, CHAT, body("before")))
        before.until(b" answer")
        hog = opened.enter_context(open_request(stage, CHAT, body("hog")))
        poison = opened.enter_context(open_request(stage, CHAT, body("poison stuck")))
        eventually(lambda: found.hit)
        found.end_stuck(found.hit[0])
        assert text_in(before.rest()) == TEXT
        hog.rest()
        assert code_of(poison) == "engine_lost"
    assert len(found.hit) == 1
    with open_request(stage, CHAT, body("poison stuck")) as again:
        assert code_of(again) == "kills_engine"


def test_a_stop_that_was_asked_for_is_no_requests_fault(
    stage: Stage, fleet: Callable[[str], Fleet], eventually: Eventually
) -> None:
    found = fleet("wedged")
    stage.prefer("m-0", "m-1")
    found.engines[1].play = well
    with open_request(stage, CHAT, body("poison asked")) as answer:
        eventually(lambda: found.hit)
        stage.control.change("m-0", state=State.STOPPING, draining=True)
        stage.control.change("m-0", state=State.STOPPING, draining=True, cut=True)
        assert text_in(answer.rest()) == TEXT


def test_the_bodies_that_are_refused_are_those_of_every_route(stage: Stage, fleet: Callable[[str], Fleet]) -> None:
    found = fleet("crash")
    for api, path in APIS.items():
        poison = json.dumps(body_of(api, stream=True)).replace("org/m", "m").replace("Say it", f"poison {api}").encode()
        assert b"poison" in poison
        for status in (502, 400):
            with open_request(stage, path, poison) as answer:
                answer.rest()
            assert answer.status == status, api
    assert len(found.hit) == len(APIS)
