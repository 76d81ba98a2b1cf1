"""Who waits, why and for how long; and what happens upstream when a client leaves, wherever its request is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, State
from tests.fakes.scripted_engine import (  # fmt: skip
    STREAM_HEAD,
    Heard,
    Play,
    ScriptedEngine,
    chunk,
    events,
    first_then,
    hangs_after,
    pauses_after,
    well,
)
from tests.stages.gateway import Answer, Stage, gateway, open_request

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Say it"}]}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + b"\0" * 4096 + b"\r\n--x--\r\n"
)
FORM_HEAD = {"Content-Type": "multipart/form-data; boundary=x"}
MODEL = ModelView(name="m", names=("m",), queue_wait_s=60.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("queue"), "--keep-alive-s", "0.1") as found:
        yield found


@pytest.fixture
def engine(stage: Stage, tmp_path: Path) -> Iterator[ScriptedEngine]:
    """An engine of four slots that share 1,000 tokens."""
    found = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well, pid=os.getpid(), slots=4).start()
    show(stage, found.view(kv_unified=True, ctx_tokens=1000, restarts=stage.control.snapshot.serial))
    yield found
    found.stop()


def show(stage: Stage, *views: InstanceView, model: ModelView = MODEL) -> None:
    stage.control.show(models=(model,), instances=views)
    stage.settle()


def waiting(stage: Stage) -> float:
    return stage.number('nemotron_ops_queue_length{model="m"}')


def reserved(stage: Stage, model: str = "m") -> float:
    return stage.number(f'nemotron_ops_instance_reserved_tokens{{instance="m-0",model="{model}"}}')


def error_in(answer: Answer) -> dict[str, object]:
    return dict(json.loads(answer.rest())["error"])


# tokens of a shared context


def test_an_answer_that_would_not_fit_beside_the_running_one_waits(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, {**BODY, "max_tokens": 700, "stream": True}) as first:
        first.until(b"data: ")
        assert 700 < reserved(stage) <= 1000
        engine.play = well
        with open_request(stage, CHAT, {**BODY, "max_tokens": 500}) as second:
            eventually(lambda: waiting(stage) == 1)
            with open_request(stage, CHAT, {**BODY, "max_tokens": 50}) as third:
                third.rest()
            assert third.status == 200
            assert len(engine.heard) == 2
            first.socket.close()
            second.rest()
    assert second.status == 200
    eventually(lambda: reserved(stage) == 0)


def test_without_a_limit_all_slots_can_be_used(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    engine.play = hangs_after(1)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(open_request(stage, CHAT, BODY))
        eventually(lambda: len(engine.heard) == 4)
        assert reserved(stage) == 1000
    eventually(lambda: reserved(stage) == 0)


def test_a_request_that_can_never_fit_gets_the_engines_own_answer(stage: Stage, engine: ScriptedEngine) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "word " * 4000}]}
    with open_request(stage, CHAT, body) as answer:
        answer.rest()
    assert answer.status == 200  # of the scripted engine; llama-server answers 400
    assert len(engine.heard) == 1


def test_prompts_are_estimated_better_with_every_answer(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    fresh = ModelView(name="learns", names=("learns",))
    show(stage, engine.view("learns", kv_unified=True, ctx_tokens=1000), model=fresh)
    long = {"model": "learns", "messages": [{"role": "user", "content": "word " * 300}], "max_tokens": 300}
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, long):
        eventually(lambda: reserved(stage, "learns") > 0)
        before = reserved(stage, "learns")
    engine.play = well  # says that any prompt has ten tokens
    for _ in range(10):
        with open_request(stage, CHAT, long) as answer:
            answer.rest()
    engine.play = hangs_after(1)
    eventually(lambda: reserved(stage, "learns") == 0)
    with open_request(stage, CHAT, long):
        eventually(lambda: reserved(stage, "learns") > 0)
        assert 300 < reserved(stage, "learns") < before - 100


FULL = b'{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'


def is_full_after(n: int, *, api: str = "chat") -> Play:
    """Sends `n` events and then that the context is full, as llama-server does to all that share it."""

    def play(s: socket.socket, request: Heard) -> None:
        if not n:
            head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
            s.sendall(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(FULL) + FULL)
            return
        told = b"data: " + FULL + b"\n\n"
        s.sendall(STREAM_HEAD + b"".join(map(chunk, [*events(api)[:n], told])) + b"0\r\n\r\n")

    return play


@pytest.mark.parametrize("n", [0, 1, 3], ids=["before-the-first-event", "after-the-first", "in-the-middle"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_was_cut_off_by_a_full_context_goes_on_alone(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None], n: int, stream: bool
) -> None:
    go_on = threading.Event()
    engine.play = first_then(is_full_after(n), pauses_after(1, go_on), well)
    with open_request(stage, CHAT, {**BODY, "stream": stream}) as answer:
        eventually(lambda: len(engine.heard) == 2)
        assert reserved(stage) == 1000
        with open_request(stage, CHAT, {**BODY, "max_tokens": 1}) as other:
            eventually(lambda: waiting(stage) == 1)
            go_on.set()
            raw = answer.rest()
            other.rest()
    assert (answer.status, other.status) == (200, 200)
    assert not answer.broken
    assert b"error" not in raw
    eventually(lambda: reserved(stage) == 0)


def test_words_that_look_like_a_full_context_are_words(stage: Stage, engine: ScriptedEngine) -> None:
    said = "data: " + FULL.decode()
    engine.play = lambda s, r: s.sendall(
        STREAM_HEAD + b"".join(map(chunk, events("chat", (said, *[" x"] * 3)))) + b"0\r\n\r\n"
    )
    with open_request(stage, CHAT, BODY) as answer:
        raw = answer.rest()
    assert json.loads(raw)["choices"][0]["message"]["content"].startswith(said)
    assert len(engine.heard) == 1


def test_where_slots_have_their_own_context_nothing_is_reserved(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    show(stage, engine.view(ctx_tokens=1000, restarts=stage.control.snapshot.serial))
    engine.play = hangs_after(1)
    both = {**BODY, "max_tokens": 900}
    with open_request(stage, CHAT, both), open_request(stage, CHAT, both):
        eventually(lambda: len(engine.heard) == 2)
        assert reserved(stage) == 0


# requests of several answers


def test_a_request_of_more_prompts_than_slots_waits_for_all_slots_and_takes_them(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    many = {"model": "m", "prompt": ["a"] * 100, "stream": True, "max_tokens": 1}
    engine.play = hangs_after(1)
    show(stage, engine.view(restarts=stage.control.snapshot.serial))
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(open_request(stage, CHAT, BODY))
        eventually(lambda: len(engine.heard) == 1)
        stack.enter_context(open_request(stage, "/v1/completions", many))
        eventually(lambda: waiting(stage) == 1)
        later = stack.enter_context(open_request(stage, CHAT, BODY))
        eventually(lambda: waiting(stage) == 2)
        assert len(engine.heard) == 1, "none passes who would make it wait longer"
        running.socket.close()
        eventually(lambda: len(engine.heard) == 2)
        assert engine.heard[1].path == "/v1/completions"
        eventually(lambda: stage.control.inflight == {"m-0": 4})
        assert waiting(stage) == 1
        engine.play = well
        stage.control.change("m-0", slots=8)
        later.rest()
    assert later.status == 200
    eventually(lambda: stage.control.inflight == {})


def test_more_prompts_than_anybody_needs_are_refused(stage: Stage, engine: ScriptedEngine) -> None:
    with open_request(stage, "/v1/completions", {"model": "m", "prompt": ["a"] * 129}) as refused:
        error = error_in(refused)
    assert (refused.status, error["code"]) == (400, "limit_exceeded")
    assert engine.heard == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_tokens_of_all_prompts_are_counted(stage: Stage, engine: ScriptedEngine, stream: bool) -> None:
    def says_three(s: socket.socket, request: Heard) -> None:
        ends = [
            {"index": n, "content": "", "stop": True, "timings": {"prompt_n": 10, "predicted_n": 5}} for n in range(3)
        ]
        if stream:
            s.sendall(STREAM_HEAD + b"".join(chunk(b"data: " + compact(end) + b"\n\n") for end in ends) + b"0\r\n\r\n")
        else:
            body = compact(ends)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    line = 'nemotron_ops_tokens_total{instance="m-0",kind="%s",model="m"}'
    before = [stage.number(line % kind) for kind in ("prompt", "completion")]
    engine.play = says_three
    with open_request(stage, "/completion", {"model": "m", "prompt": ["a", "b", "c"], "stream": stream}) as answer:
        answer.rest()
    assert [stage.number(line % kind) for kind in ("prompt", "completion")] == [before[0] + 30, before[1] + 15]


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# what a client is told


def test_with_no_queue_requests_are_answered_or_refused_at_once(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    show(
        stage, engine.view(slots=1, restarts=stage.control.snapshot.serial),
        model=ModelView(name="m", names=("m",), queue_length=0),
    )  # fmt: skip
    with open_request(stage, CHAT, BODY) as first:
        first.rest()
    assert first.status == 200
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, BODY):
        eventually(lambda: len(engine.heard) == 2)
        with open_request(stage, CHAT, BODY) as refused:
            error = error_in(refused)
    assert (refused.status, error["code"]) == (503, "queue_full")
    assert waiting(stage) == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_full_queue_says_the_place_in_it_and_when_to_come_back(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None], path: str
) -> None:
    starting = engine.view(state=State.STARTING, restarts=stage.control.snapshot.serial)
    show(stage, starting, model=ModelView(name="m", names=("m",), queue_length=1))
    with open_request(stage, CHAT, BODY):
        eventually(lambda: waiting(stage) == 1)
        with open_request(stage, path, {**BODY, "max_tokens": 9}) as refused:
            error = error_in(refused)
    assert refused.status == 503
    assert "Retry-After: " in refused.head
    assert error["queue_position"] == 2
    assert isinstance(error["estimated_wait_s"], float | int)


def test_who_has_waited_too_long_is_told_the_same(stage: Stage, engine: ScriptedEngine) -> None:
    show(stage, engine.view(state=State.STARTING, restarts=stage.control.snapshot.serial))
    with open_request(stage, CHAT, BODY, headers={"X-Request-Timeout": "0.1"}) as refused:
        error = error_in(refused)
    assert (refused.status, error["code"], error["queue_position"]) == (503, "queue_timeout", 1)
    assert isinstance(error["estimated_wait_s"], float | int)
    assert "Retry-After: " in refused.head


# clients that leave


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHAT, {**BODY, "max_tokens": 2}, {}),
        ("/v1/embeddings", {"model": "m", "input": "x"}, {}),
        ("/v1/rerank", {"model": "m", "query": "x", "documents": ["y"]}, {}),
        ("/tokenize", {"model": "m", "content": "x"}, {}),
        ("/v1/audio/transcriptions", FORM, FORM_HEAD),
        ("/v1/responses", {"model": "m", "input": "x"}, {}),
        ("/v1/messages", {**BODY, "max_tokens": 100}, {}),
    ],
    ids=["short-answer", "embeddings", "rerank", "tokenize", "upload", "responses", "messages"],
)
def test_a_client_that_leaves_takes_its_request_along_on_every_route(
    stage: Stage,
    engine: ScriptedEngine,
    eventually: Callable[..., None],
    path: str,
    body: object,
    headers: dict[str, str],
) -> None:
    engine.play = hangs_after(0)
    with open_request(stage, path, body, headers=headers):
        eventually(lambda: engine.heard)
    eventually(lambda: engine.left == 1)
    eventually(lambda: not stage.control.inflight)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_the_queue_is_never_asked_for(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None], stream: bool
) -> None:
    engine.play = hangs_after(0)
    with open_request(stage, CHAT, {**BODY, "max_tokens": 2000}):
        eventually(lambda: len(engine.heard) == 1)
        with open_request(stage, CHAT, {**BODY, "stream": stream}) as leaver:
            eventually(lambda: waiting(stage) == 1)
            if stream:
                leaver.until(b":\n\n")
        eventually(lambda: waiting(stage) == 0)
    eventually(lambda: engine.left == 1)
    engine.play = well
    with open_request(stage, CHAT, BODY) as answer:
        answer.rest()
    assert answer.status == 200
    assert len(engine.heard) == 2


def test_a_client_that_leaves_in_the_middle_of_its_upload_costs_nothing(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    connections = "nemotron_ops_client_connections"
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
    with socket.create_connection(stage.address) as s:
        s.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + FORM[:2000])
        eventually(lambda: stage.number(connections) == 2)
    eventually(lambda: stage.number(connections) == 1)
    assert engine.heard == []
