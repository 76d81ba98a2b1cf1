"""What a client sees while an engine is silent, kills itself on a request, or says itself that it failed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.gateway.queue.suspects import PAUSE_S
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.calls import body_of, text_in
from tests.fakes.scripted_engine import (  # fmt: skip
    STREAM_HEAD,
    Heard,
    ScriptedEngine,
    answer_to,
    chunk,
    events,
    first_then,
    hangs_after,
    pauses_after,
    says,
    well,
)
from tests.fakes.told import spoken
from tests.stages.gateway import Stage, gateway, open_request
from tests.tables.gateway_faults import APIS

pytestmark = pytest.mark.process
CHAT = APIS["chat"]
MODEL = ModelView(name="m", names=("m", "org/m"), queue_wait_s=20.0)
TEXT = "The answer is four."
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("patience"), "--keep-alive-s", "0.1") as found:
        yield found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway that sends no comment within a test: an answer's status is its own, however slow the machine."""
    with gateway(tmp_path_factory.mktemp("quiet"), "--keep-alive-s", "300") as found:
        yield found


@pytest.fixture
def engines(stage: Stage, tmp_path: Path) -> Iterator[list[ScriptedEngine]]:
    """Five engines of one model, all well."""
    made = [ScriptedEngine(name=f"m-{n}", path=tmp_path / f"{n}.sock", play=well).start() for n in range(5)]
    show(stage, *made)
    yield made
    for engine in made:
        engine.stop()


def show(stage: Stage, *engines: ScriptedEngine, model: ModelView = MODEL) -> None:
    serial = stage.control.snapshot.serial
    stage.control.show(models=(model,), instances=tuple(e.view(pid=serial + 1) for e in engines))
    stage.settle()


# silence


@pytest.mark.parametrize("api", APIS)
def test_a_stream_gets_comments_while_its_prompt_is_read(stage: Stage, engines: list[ScriptedEngine], api: str) -> None:
    go_on = threading.Event()

    def reads_long(s: socket.socket, request: Heard) -> None:
        s.sendall(STREAM_HEAD + chunk(b":\n\n"))
        go_on.wait(60)
        well_after_head(s, request)

    show(stage, engines[0])
    engines[0].play = reads_long
    with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
        answer.until(b":\n\n")
        assert b"data: " not in answer.data
        go_on.set()
        raw = answer.rest()
    assert not answer.broken
    assert text_in(raw) == TEXT


def well_after_head(s: socket.socket, request: Heard) -> None:
    s.sendall(b"".join(map(chunk, answer_to(request))) + b"0\r\n\r\n")


@pytest.mark.parametrize("api", APIS)
def test_a_comment_is_no_answer_so_the_request_goes_elsewhere_when_its_engine_dies(
    stage: Stage, engines: list[ScriptedEngine], api: str
) -> None:
    go_on = threading.Event()

    def dies(s: socket.socket, request: Heard) -> None:
        s.sendall(STREAM_HEAD)
        go_on.wait(60)

    show(stage, *engines[:2])
    engines[0].play = dies
    with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
        answer.until(b":\n\n")
        go_on.set()
        raw = answer.rest()
    assert engines[1].heard
    assert not answer.broken
    assert text_in(raw) == TEXT


def test_what_fails_after_a_comment_is_an_error_in_the_stream(stage: Stage, engines: list[ScriptedEngine]) -> None:
    go_on = threading.Event()
    body = b'{"error":{"code":400,"message":"too long","type":"invalid_request_error"}}'

    def refuses(s: socket.socket, request: Heard) -> None:
        go_on.wait(60)
        s.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    show(stage, engines[0])
    engines[0].play = refuses
    for api in ("chat", "messages", "responses"):
        go_on.clear()
        with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
            answer.until(b":\n\n")
            go_on.set()
            raw = answer.rest()
        assert answer.broken
        values = [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: ")]
        (value,) = [v for v in values if v.get("type") == "error"] if api == "responses" else values
        assert "too long" in str(value)
        assert ("type" in value) is (api != "chat")


def test_a_silent_pause_between_words_gets_comments_too(stage: Stage, engines: list[ScriptedEngine]) -> None:
    show(stage, engines[0])
    engines[0].play = hangs_after(3)
    with open_request(stage, CHAT, body_of("chat", stream=True)) as answer:
        answer.until(b" answer")
        answer.until(b":\n\n")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_a_client_that_names_its_patience_waits_no_longer_for_a_first_token(
    stage: Stage, engines: list[ScriptedEngine], eventually: Eventually, path: str, stream: bool
) -> None:
    show(stage, engines[0])
    engines[0].play = hangs_after(0)
    body = body_of("chat", stream=stream) if path == CHAT else {"model": "m", "input": "x"}
    with open_request(stage, path, body, headers={"X-Request-Timeout": "1"}) as answer:
        raw = answer.rest()
    assert b"first_token_timeout" in raw
    assert answer.broken if stream and path == CHAT else answer.status == 504
    eventually(lambda: engines[0].left == 1)
    eventually(lambda: not stage.control.inflight)
    engines[0].play = well
    with open_request(stage, CHAT, body_of("chat", stream=True)) as other:
        assert text_in(other.rest()) == TEXT, "the engine is not suspected"


def test_patience_is_for_the_first_token_only(stage: Stage, engines: list[ScriptedEngine]) -> None:
    show(stage, engines[0])
    engines[0].play = hangs_after(3)
    patience_s = 2.0  # the first token comes at once, but a machine may be slow
    head = {"X-Request-Timeout": str(patience_s)}
    began = time.monotonic()
    with open_request(stage, CHAT, body_of("chat", stream=True), headers=head) as answer:
        answer.until(b" answer")
        while time.monotonic() < began + patience_s + 0.5:
            answer.data = b""
            answer.until(b":\n\n")


# forms


def test_a_transcript_is_streamed_as_it_comes(stage: Stage, engines: list[ScriptedEngine]) -> None:
    go_on = threading.Event()
    delta, done = b'{"type":"transcript.text.delta","delta":"Hi"}', b'{"type":"transcript.text.done","text":"Hi"}'

    def transcribes(s: socket.socket, request: Heard) -> None:
        assert b"id_slot" not in request.body
        s.sendall(STREAM_HEAD + chunk(b"data: " + delta + b"\n\n"))
        go_on.wait(60)
        s.sendall(chunk(b"data: " + done + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n")

    show(stage, engines[0])
    engines[0].play = transcribes
    parts = [b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % pair for pair in (
        (b"model", b"m"), (b"stream", b"true"), (b"id_slot", b"1"), (b'file"; filename="a.wav', b"RIFF")
    )]  # fmt: skip
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    with open_request(stage, "/audio/transcriptions", b"".join(parts) + b"--x--\r\n", headers=head) as answer:
        answer.until(delta)
        go_on.set()
        raw = answer.rest()
    assert not answer.broken
    assert done in raw
    assert engines[0].heard[0].path == "/v1/audio/transcriptions"


# engines that are lost on a request


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_request_that_kills_engines_gets_two_of_them(
    quiet: Stage, engines: list[ScriptedEngine], stream: bool
) -> None:
    died: list[str] = []
    show(quiet, *engines)
    for engine in engines:
        engine.play = lambda s, r, name=engine.name: died.append(name) if b"poison" in r.body else well(s, r)  # type: ignore[misc]
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "poison"}]}
    with open_request(quiet, CHAT, body) as answer:
        raw = answer.rest()
    assert len(died) == 2
    assert answer.status == 502
    assert b"engine_lost" in raw
    with open_request(quiet, CHAT, body_of("chat", stream=True)) as other:
        assert text_in(other.rest()) == TEXT


def test_engines_that_cannot_be_reached_are_no_reason_to_give_up(stage: Stage, engines: list[ScriptedEngine]) -> None:
    for engine in engines[:3]:
        engine.stop()
    stage.prefer(*(e.name for e in engines))
    with open_request(stage, CHAT, body_of("chat", stream=True)) as answer:
        assert text_in(answer.rest()) == TEXT


def test_a_stream_that_ends_too_early_says_nothing_about_its_engine(
    quiet: Stage, engines: list[ScriptedEngine]
) -> None:
    show(quiet, engines[0])
    engines[0].play = first_then(says(STREAM_HEAD + b"0\r\n\r\n"), well)
    retries = 'nemotron_ops_retries_total{instance="m-0",model="m"}'
    before = quiet.number(retries)
    with open_request(quiet, CHAT, body_of("chat", stream=True)) as answer:
        assert text_in(answer.rest()) == TEXT
    waited_s = int(answer.head.partition("X-Queue-Ms: ")[2].split()[0]) / 1000
    assert waited_s < PAUSE_S, "it had to wait for the engine to be trusted again"
    assert quiet.number(retries) == before + 1


def test_a_stream_of_chosen_fields_ends_well(stage: Stage, engines: list[ScriptedEngine]) -> None:
    def chooses(s: socket.socket, request: Heard) -> None:
        last = {name: True for name in request.json["response_fields"] if name == "stop"}
        parts = [
            b'data: {"index":0,"content":"hi","stop":false}\n\n',
            b"data: %b\n\n" % json.dumps(last, separators=(",", ":")).encode(),
        ]
        s.sendall(STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")

    show(stage, engines[0])
    engines[0].play = chooses
    with open_request(
        stage, "/completion", {**body_of("native", stream=True), "response_fields": ["content"]}
    ) as answer:
        raw = answer.rest()
    assert not answer.broken
    assert b"error" not in raw
    assert len(engines[0].heard) == 1


# the engine's own errors


INNER = b'{"code":500,"message":"Compute error.","type":"server_error"}'


@pytest.mark.parametrize("first", [True, False], ids=["at-once", "after-some-events"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("api", APIS)
def test_an_engines_own_error_has_the_shape_of_the_api_and_never_a_clean_end(
    quiet: Stage, engines: list[ScriptedEngine], api: str, stream: bool, first: bool
) -> None:
    error = b"event: error\ndata: " + INNER if api == "messages" else b'data: {"error":' + INNER + b"}"
    before = [] if first else events(spoken(api))[:3]
    show(quiet, engines[0])
    engines[0].play = says(STREAM_HEAD + b"".join(map(chunk, [*before, error + b"\n\n"])) + b"0\r\n\r\n")
    with open_request(quiet, APIS[api], body_of(api, stream=stream)) as answer:
        raw = answer.rest()
    told = api == "responses" and stream and not first  # twice in an event, then once
    assert raw.count(b"Compute error.") == (3 if told else 1)
    if told:
        raw = raw[: raw.index(b"event: response.failed")]
    if stream and not first:
        assert answer.broken
        line = raw.rstrip().rsplit(b"\n", 1)[1]
        assert line.startswith(b"data: ")
        value = json.loads(line[6:])
    else:
        assert answer.status == 500
        value = json.loads(raw)
    if api == "messages":
        assert (value["type"], value["error"]["type"], value["error"]["message"]) == (
            "error",
            "api_error",
            "Compute error.",
        )
    elif told:
        assert (value["type"], value["message"]) == ("error", "Compute error.")
    else:
        assert value["error"]["message"] == "Compute error."
    assert len(engines[0].heard) == 1


# what is counted


@pytest.mark.parametrize("seen", [3, 0], ids=["after-some-events", "while-it-was-read"])
def test_a_prompt_is_paid_for_also_when_its_client_leaves(tmp_path: Path, eventually: Eventually, seen: int) -> None:
    keys = tmp_path / "keys.json"
    scopes = (Scope.INFERENCE, Scope.METRICS)
    text = keystore.create(keys, Key(id="", sha256="", name="day", scopes=scopes, tokens_per_day=20000))[1]
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(seen), slots=4).start()
    header = {"Authorization": f"Bearer {text}"}
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x" * 100_000}]}
    with gateway(tmp_path, "--api-keys-file", str(keys)) as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle(text)
        with open_request(stage, CHAT, body, headers=header) as answer:
            if seen:
                answer.until(b"data: ")
            eventually(lambda: engine.heard)
        engine.play = well

        def limited() -> bool:
            with open_request(stage, "/tokenize", {"content": "x"}, headers=header) as answer:
                return b"tokens_per_day" in answer.rest()

        eventually(limited)
    engine.stop()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_engine_that_never_begins_an_answer_loses_the_request_and_the_slot_is_free(
    tmp_path: Path, eventually: Eventually, stream: bool
) -> None:
    """The next bug of this kind frees its slots by itself: nothing else is known of the engine."""
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(0)).start()
    try:
        with gateway(tmp_path, "--silence-s", "1", "--keep-alive-s", "300") as stage:
            show(stage, engine)
            with open_request(stage, CHAT, body_of("chat", stream=stream)) as answer:
                raw = answer.rest()
            assert b"engine_silent" in raw
            eventually(lambda: engine.left == 1)
            eventually(lambda: not stage.control.inflight)
            with open_request(stage, CHAT, body_of("chat", stream=stream)) as again:
                assert b"engine_silent" not in again.rest(), "the same request is refused at once"
            assert len(engine.heard) == 1
            engine.play = well
            with open_request(stage, CHAT, {**body_of("chat", stream=True), "seed": 7}) as other:
                assert text_in(other.rest()) == TEXT
    finally:
        engine.stop()


def test_a_long_wait_in_the_queue_is_no_silence_of_an_engine(tmp_path: Path) -> None:
    """The engine gets the second request after more than the silence that is allowed."""
    go_on = threading.Event()
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=pauses_after(1, go_on)).start()
    try:
        with gateway(tmp_path, "--silence-s", "1", "--keep-alive-s", "300") as stage:
            show(stage, engine)
            with contextlib.ExitStack() as stack:
                asked = [
                    stack.enter_context(open_request(stage, CHAT, {**body_of("chat", stream=True), "seed": n}))
                    for n in range(engine.view().slots + 1)
                ]
                time.sleep(2.5)
                go_on.set()
                for one in asked:
                    assert text_in(one.rest()) == TEXT
    finally:
        engine.stop()
