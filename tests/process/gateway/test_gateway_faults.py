"""The fault table: what a client sees when an engine fails, at every point of a request."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.supervisor.snapshot import ModelView, State
from tests.fakes.calls import body_of, text_in, tools_of
from tests.fakes.scripted_engine import (
    STREAM_HEAD,
    WORDS,
    Heard,
    Play,
    ScriptedEngine,
    api_of,
    call_events,
    chunk,
    dies_after,
    dies_saying,
    events,
    first_then,
    hangs_after,
    says,
    well,
)
from tests.fakes.stream_reader import put_together
from tests.fakes.told import spoken, told
from tests.stages.gateway import Stage, gateway, open_request
from tests.tables.gateway_faults import APIS, CALLING, FAULTS, LEAVINGS, Fault, Leaving, sees

pytestmark = pytest.mark.process
MODEL = ModelView(name="m", names=("m", "org/m"), queue_wait_s=5.0)
TEXT = "".join(WORDS)
QUEUE = 'nemotron_ops_queue_length{model="m"}'
CLIENTS = "nemotron_ops_client_connections"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("g"), "--retries", "1") as found:
        yield found


@pytest.fixture
def engines(stage: Stage, tmp_path: Path) -> Iterator[Callable[..., list[ScriptedEngine]]]:
    """`engines(play, play …)`: scripted engines that serve the model from now on; a play None listens nowhere."""
    made: list[ScriptedEngine] = []

    def make(*plays: object, **model: object) -> list[ScriptedEngine]:
        for n, play in enumerate(plays):
            engine = ScriptedEngine(name=f"m-{n}", path=tmp_path / f"{n}.sock", play=play or well)  # type: ignore[arg-type]
            made.append(engine if play is None else engine.start())
        views = tuple(e.view(restarts=stage.control.snapshot.serial) for e in made)
        stage.control.show(models=(replace(MODEL, **model),), instances=views)  # type: ignore[arg-type]
        stage.settle()
        return made

    yield make
    for engine in made:
        engine.stop()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name.replace(" ", "-"))
def test_a_fault_with_another_instance_at_hand(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], fault: Fault, api: str, stream: bool
) -> None:
    bad, good = engines(fault.play, well)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS[api], body_of(api, stream=stream)) as answer:
        raw = answer.rest()
    assert sees(fault, stream=stream, other=True) != "error"
    if fault.play is not None:
        assert bad.heard, "the fault did not happen"
    assert not answer.broken
    assert answer.status == 200
    assert (text_in(raw) if stream else raw.decode()).find(TEXT) >= 0, raw
    assert b'"engine"' not in raw, "the engine's own name for the model must not show"
    if stream:
        assert put_together(raw) == told(api, events(spoken(api)))


@pytest.mark.parametrize("api", CALLING)
@pytest.mark.parametrize("fault", [f for f in FAULTS if f.seen], ids=lambda f: f.name.replace(" ", "-"))
def test_a_tool_call_in_progress_is_made_again_and_goes_on_under_its_id(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], fault: Fault, api: str
) -> None:
    bad, good = engines(fault.play, well)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS[api], body_of(api, stream=True) | {"tools": tools_of(api)}) as answer:
        raw = answer.rest()
    assert good.heard
    assert not answer.broken
    assert put_together(raw) == told(api, call_events(spoken(api)))


@pytest.mark.parametrize("api", CALLING)
def test_a_tool_call_in_progress_goes_on_where_the_template_says_how_it_is_written(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], api: str
) -> None:
    def goes_on(s: socket.socket, request: Heard) -> None:
        if request.path == "/apply-template":
            message = request.json["messages"][1]
            written = message["tool_calls"][0]["function"]["arguments"]
            body = json.dumps({"prompt": f"<start>{message['content']}<call>{written}</call>"}).encode()
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        elif api == "messages":  # repeats what it is given
            s.sendall(STREAM_HEAD + b"".join(map(chunk, call_events(api))) + b"0\r\n\r\n")
        else:
            rest = call_events(spoken(api), ("o", '"', "}"), given='{"city":"Osl')
            s.sendall(STREAM_HEAD + b"".join(map(chunk, rest)) + b"0\r\n\r\n")

    def dies(s: socket.socket, request: Heard) -> None:
        begun = call_events(spoken(api), ("{", '"city":"', "Osl"))
        s.sendall(STREAM_HEAD + b"".join(map(chunk, begun[: HEADS_OF_CALLS[spoken(api)] + 3])))

    bad, good = engines(dies, goes_on)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS[api], body_of(api, stream=True) | {"tools": tools_of(api)}) as answer:
        raw = answer.rest()
    assert not answer.broken
    assert [heard.path for heard in good.heard] == ["/apply-template", APIS[spoken(api)]]
    assert '<call>{"city":"Osl' in json.dumps(good.heard[1].json).replace('\\"', '"')
    assert put_together(raw) == told(api, call_events(spoken(api)))


HEADS_OF_CALLS = {"chat": 2, "messages": 2}  # events before the first of the arguments


@pytest.mark.parametrize("api", CALLING)
@pytest.mark.parametrize("right", [True, False], ids=["and-then-right", "and-never-right"])
def test_a_tool_call_that_comes_out_differently_is_made_once_more(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], api: str, right: bool
) -> None:
    def other(s: socket.socket, request: Heard) -> None:
        s.sendall(STREAM_HEAD + b"".join(map(chunk, call_events(spoken(api), ("{", '"city":"', "Rome")))))

    bad, good = engines(dies_saying(4), first_then(other, well) if right else other)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS[api], body_of(api, stream=True) | {"tools": tools_of(api)}) as answer:
        raw = answer.rest()
    assert b"Rome" not in raw
    if right:
        assert len(good.heard) == 2
        assert put_together(raw) == told(api, call_events(spoken(api)))
        return
    assert answer.broken, "an error in a stream must not end like a whole answer"
    assert b'"error"' in raw
    assert not any(end in raw for end in (b"[DONE]", b"message_stop", b"response.completed"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name.replace(" ", "-"))
def test_a_fault_without_another_instance_is_an_error(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], fault: Fault, stream: bool
) -> None:
    engines(first_then(fault.play, says(b"")) if fault.play else None)
    assert sees(fault, stream=stream, other=False) == "error"
    with open_request(stage, APIS["chat"], body_of("chat", stream=stream), timeout_s=60) as answer:
        raw = answer.rest()
    assert b'"error"' in raw
    assert b"[DONE]" not in raw
    assert answer.broken if answer.status == 200 else answer.status in (502, 503)


def only_anew(s: socket.socket, request: Heard) -> None:
    """Refuses to go on from what was said."""
    if "continue_final_message" in request.json:
        body = b'{"error":{"code":400,"message":"Failed to initialize samplers","type":"invalid_request_error"}}'
        s.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    else:
        well(s, request)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_engine_that_will_not_go_on_from_what_was_said_says_all_again(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], api: str
) -> None:
    bad, good = engines(dies_saying(2), only_anew)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
        raw = answer.rest()
    assert len(good.heard) == 2
    assert not answer.broken
    assert put_together(raw) == told(api, events(spoken(api)))


THOUGHTS = ("Hm. ", "So.")


def thinks(s: socket.socket, request: Heard) -> None:
    """Thinks, ends its thinking, and says nothing."""
    s.sendall(STREAM_HEAD + b"".join(map(chunk, events(api_of(request), (), THOUGHTS))) + b"0\r\n\r\n")


def dies_thinking(s: socket.socket, request: Heard) -> None:
    s.sendall(STREAM_HEAD + b"".join(map(chunk, events(api_of(request), (), THOUGHTS)[:2])))


@pytest.mark.parametrize("again", [thinks, only_anew, dies_thinking, says(b"")], ids=["", "refused", "dies", "lost"])
@pytest.mark.parametrize("api", CALLING)
def test_thoughts_without_words_are_marked_where_no_words_can_be_had(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], api: str, again: Play
) -> None:
    (engine,) = engines(first_then(thinks, again), lost_in_thought="retry", queue_wait_s=0.5)
    with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
        raw = answer.rest()
    assert len(engine.heard) > 1
    assert not answer.broken
    assert raw.count(b'"lost_in_thought":true') == 1
    unmarked = raw.replace(b',"lost_in_thought":true', b"")
    assert put_together(unmarked) == told(api, events(spoken(api), (), THOUGHTS))


@pytest.mark.parametrize("api", CALLING)
def test_words_that_come_when_asked_for_follow_the_thoughts(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], api: str
) -> None:
    def speaks(s: socket.socket, request: Heard) -> None:
        repeats = THOUGHTS if api == "messages" else ()
        answer = events(spoken(api), WORDS, repeats, given=("" if repeats else "".join(THOUGHTS), ""))
        s.sendall(STREAM_HEAD + b"".join(map(chunk, answer)) + b"0\r\n\r\n")

    engines(first_then(thinks, speaks), lost_in_thought="retry")
    with open_request(stage, APIS[api], body_of(api, stream=True)) as answer:
        raw = answer.rest()
    assert not answer.broken
    expected = told(api, events(spoken(api), WORDS, THOUGHTS))
    assert sorted(map(json.dumps, put_together(raw))) == sorted(map(json.dumps, expected))
    assert raw.find(b"Hm. ") < raw.find(b" answer") < raw.find(b" four")


def test_a_stream_is_continued_by_the_restarted_instance(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]]
) -> None:
    (engine,) = engines(first_then(dies_after(3), well))
    with open_request(stage, APIS["chat"], body_of("chat", stream=True)) as answer:
        answer.until(b" answer")
        stage.control.change(engine.name, state=State.BACKOFF)
        stage.control.change(engine.name, state=State.READY, pid=2)
        raw = answer.everything()
    assert not answer.broken
    assert text_in(raw) == TEXT
    assert raw.count(b'"role":"assistant"') == 1
    assert engine.heard[1].json["continue_final_message"] == "content"
    assert engine.heard[1].json["max_tokens"] < 50


def test_a_stream_that_lost_only_its_end_mark_ends_well(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]]
) -> None:
    engines(dies_after(7))
    with open_request(stage, APIS["chat"], body_of("chat", stream=True)) as answer:
        raw = answer.rest()
    assert not answer.broken
    assert text_in(raw) == TEXT
    assert raw.rstrip().endswith(b"data: [DONE]")


def test_an_engines_own_error_event_is_passed_on(stage: Stage, engines: Callable[..., list[ScriptedEngine]]) -> None:
    error = b'data: {"error":{"code":500,"message":"Compute error.","type":"server_error"}}\n\n'
    start = b"".join(map(chunk, events("chat")[:3]))
    engines(says(STREAM_HEAD + start + chunk(error) + b"0\r\n\r\n"))
    with open_request(stage, APIS["chat"], body_of("chat", stream=True)) as answer:
        raw = answer.rest()
    assert b"Compute error." in raw
    assert b"[DONE]" not in raw


@pytest.mark.parametrize("leaving", LEAVINGS, ids=lambda found: found.name.replace(" ", "-"))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_takes_its_request_along(
    stage: Stage,
    engines: Callable[..., list[ScriptedEngine]],
    eventually: Callable[..., None],
    leaving: Leaving,
    stream: bool,
) -> None:
    (engine,) = engines(hangs_after(leaving.events or 0))
    if leaving.events is None:
        if "waits" in leaving.name:
            stage.control.change(engine.name, state=State.STARTING)
            stage.settle()
            with open_request(stage, APIS["chat"], body_of("chat", stream=stream)):
                eventually(lambda: stage.number(QUEUE) == 1)
            eventually(lambda: stage.number(QUEUE) == 0)
            stage.control.change(engine.name, state=State.READY, pid=4)
            stage.settle()
        else:
            with socket.create_connection(stage.address) as s:
                s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
                eventually(lambda: stage.number(CLIENTS) == 2)
        eventually(lambda: stage.number(CLIENTS) == 1)
        assert engine.heard == []
    else:
        with open_request(stage, APIS["chat"], body_of("chat", stream=stream)):
            eventually(lambda: engine.heard)
        eventually(lambda: engine.left == 1)
    eventually(lambda: not stage.control.inflight)


def test_a_cut_instance_loses_its_connections(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], eventually: Callable[..., None]
) -> None:
    bad, good = engines(hangs_after(3), well)
    stage.prefer(bad.name, good.name)
    with open_request(stage, APIS["chat"], body_of("chat", stream=True)) as answer:
        answer.until(b" answer")
        stage.control.change(bad.name, draining=True, cut=True)
        raw = answer.everything()
    assert text_in(raw) == TEXT
    eventually(lambda: bad.left == 1)


def test_a_client_never_hears_of_the_engines_key_and_the_engine_never_of_the_clients(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], tmp_path: Path
) -> None:
    (engine,) = engines(well)
    key_file = tmp_path / "key"
    key_file.write_text("engine-secret\n")
    stage.control.change(engine.name, api_key_file=str(key_file), pid=3)
    stage.settle()
    head = {"Authorization": "Bearer client-secret", "X-Conversation-Id": "c1", "X-Api-Key": "client-secret"}
    with open_request(stage, APIS["chat"], body_of("chat", stream=True), headers=head) as answer:
        raw = answer.rest()
    heard: Heard = engine.heard[-1]
    assert heard.headers["authorization"] == "Bearer engine-secret"
    assert "x-conversation-id" not in heard.headers
    assert "client-secret" not in str(heard)
    assert b"engine-secret" not in raw
