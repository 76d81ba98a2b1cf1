"""The gateway as a process: who gets in, what it says itself, how it follows the supervisor, how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.gateway.api.routes import ROUTES, Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.gateway.observe.exposition import names
from nemotron_ops.supervisor.snapshot import ModelView, State
from tests.fakes.calls import call
from tests.fakes.scripted_engine import (
    ScriptedEngine,
    first_then,
    hangs_after,
    keeps,
    only_thinks,
    pauses_after,
    says,
    well,
)
from tests.stages.gateway import Stage, gateway, open_request

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Say it"}]}
MODEL = ModelView(name="m", names=("m",), queue_wait_s=20.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("door")
    with gateway(folder, "--access-log", str(folder / "access.log"), "--keep-alive-s", "0.2") as found:
        yield found


@pytest.fixture
def engine(stage: Stage, tmp_path: Path) -> Iterator[ScriptedEngine]:
    found = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well, pid=os.getpid()).start()
    stage.control.show(models=(MODEL,), instances=(found.view(restarts=stage.control.snapshot.serial),))
    stage.settle()
    yield found
    found.stop()


# what it says itself


def test_health_follows_the_instances(stage: Stage, engine: ScriptedEngine) -> None:
    assert call(stage, "GET", "/health")[0] == 200
    stage.control.change("m-0", state=State.STARTING, load_progress=0.4)
    stage.settle()
    status, _, body = call(stage, "GET", "/health")
    assert status == 503
    assert json.loads(body)["error"]["message"] == "Loading model"
    card = json.loads(call(stage, "GET", "/v1/models/m")[2])
    assert (card["state"], card["load_progress"]) == ("loading", 0.4)


def test_unknown_paths_and_wrong_methods_are_told_apart(stage: Stage) -> None:
    assert call(stage, "GET", "/nope")[0] == 404
    assert call(stage, "GET", CHAT)[0] == 405
    assert call(stage, "POST", "/health")[0] == 405
    for path in ("/cors-proxy", "/tools", "/models/load", "/v1/stream", "/../etc/passwd", "//"):
        assert call(stage, "POST", path, {})[0] == 404


def test_every_documented_metric_is_shown_and_no_other(stage: Stage, engine: ScriptedEngine) -> None:
    call(stage, "POST", CHAT, BODY)
    text = call(stage, "GET", "/metrics")[2].decode()
    shown = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert shown == set(names())


def test_restarts_are_counted_by_reason(stage: Stage, engine: ScriptedEngine) -> None:
    stage.control.change("m-0", restarts=3, restart_reasons={"asked": 1, "oom_killer": 2})
    stage.settle()
    line = 'nemotron_ops_instance_restarts_total{instance="m-0",model="m",reason="oom_killer"}'
    assert stage.number(line) == 2


def test_tokens_and_requests_are_counted(stage: Stage, engine: ScriptedEngine) -> None:
    line = 'nemotron_ops_tokens_total{instance="m-0",kind="completion",model="m"}'
    before = stage.number(line)
    call(stage, "POST", CHAT, BODY)
    call(stage, "POST", CHAT, {**BODY, "stream": True})
    assert stage.number(line) == before + 10


def test_openapi_describes_every_route(stage: Stage) -> None:
    found = json.loads(call(stage, "GET", "/openapi.json")[2])["paths"]
    assert {(r.path, r.method.lower()) for r in ROUTES} <= {(p, m) for p, ms in found.items() for m in ms}


def test_the_access_log_has_no_content(stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]) -> None:
    canary = "canary-4711"
    secret = {**BODY, "messages": [{"role": "user", "content": canary}]}
    call(stage, "POST", CHAT, secret, Authorization=f"Bearer {canary}", X_Request_Id="log-me")
    log = stage.folder / "access.log"
    eventually(lambda: "log-me" in log.read_text())
    line = next(json.loads(found) for found in log.read_text().splitlines() if "log-me" in found)
    assert (line["model"], line["status"], line["completion_tokens"]) == ("m", 200, 5)
    assert canary not in log.read_text()
    assert canary not in stage.log.read_text()


def test_a_request_id_is_the_clients_own_if_it_is_harmless(stage: Stage, engine: ScriptedEngine) -> None:
    assert call(stage, "POST", CHAT, BODY, X_Request_Id="abc-1")[1]["x-request-id"] == "abc-1"
    assert call(stage, "POST", CHAT, BODY, X_Request_Id="a b")[1]["x-request-id"].startswith("req-")


# web pages


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "127.0.0.1.evil.example"])
def test_a_page_whose_name_points_here_gets_nothing(stage: Stage, host: str) -> None:
    assert call(stage, "POST", CHAT, BODY, Host=host)[0] == 403
    assert call(stage, "GET", "/v1/models", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8001", "127.0.0.1:1", "[::1]:8001"])
def test_loopback_names_are_served(stage: Stage, host: str) -> None:
    assert call(stage, "GET", "/v1/models", Host=host)[0] == 200


def test_a_page_of_another_origin_gets_nothing_and_no_cors(stage: Stage) -> None:
    status, headers, _ = call(stage, "POST", CHAT, BODY, Origin="https://evil.example")
    assert status == 403
    assert not any(h.startswith("access-control") for h in headers)
    status, headers, _ = call(stage, "OPTIONS", CHAT, Origin="https://evil.example")
    assert not any(h.startswith("access-control") for h in headers)


def test_an_allowed_origin_is_served_with_cors(tmp_path: Path) -> None:
    with gateway(tmp_path, "--allowed-origin", "https://app.example") as stage:
        stage.control.show(models=(MODEL,))
        for method, path in (("GET", "/v1/models"), ("OPTIONS", CHAT)):
            _, headers, _ = call(stage, method, path, Origin="https://app.example")
            assert headers["access-control-allow-origin"] == "https://app.example"


# queueing


def test_a_waiting_stream_gets_comments_and_then_its_answer(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    stage.control.change("m-0", state=State.STARTING)
    stage.settle()
    with open_request(stage, CHAT, {**BODY, "stream": True}) as answer:
        answer.until(b":\n\n")
        stage.control.change("m-0", state=State.READY)
        raw = answer.rest()
    assert b"data: [DONE]" in raw
    assert not answer.broken


def test_a_stream_that_got_comments_and_then_a_refusal_ends_as_an_error(stage: Stage, engine: ScriptedEngine) -> None:
    body = b'{"error":{"code":400,"message":"too long","type":"invalid_request_error"}}'
    engine.play = says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    stage.control.change("m-0", state=State.STARTING)
    stage.settle()
    with open_request(stage, CHAT, {**BODY, "stream": True}) as answer:
        answer.until(b":\n\n")
        stage.control.change("m-0", state=State.READY)
        raw = answer.rest()
    assert b'data: {"error":' in raw
    assert b"too long" in raw
    assert answer.broken


def test_a_waiting_request_is_told_when_the_model_cannot_start(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    stage.control.change("m-0", state=State.STARTING)
    stage.settle()
    with open_request(stage, CHAT, BODY) as answer:
        eventually(lambda: stage.number('nemotron_ops_queue_length{model="m"}') == 1)
        stage.control.change("m-0", state=State.FAILED, reason="out of memory")
        raw = answer.rest()
    assert answer.status == 503
    assert b"out of memory" in raw


def test_more_requests_than_slots_wait_their_turn(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, BODY), open_request(stage, CHAT, BODY):
        eventually(lambda: len(engine.heard) == 2)
        with open_request(stage, CHAT, BODY) as third:
            eventually(lambda: stage.number('nemotron_ops_queue_length{model="m"}') == 1)
            assert len(engine.heard) == 2
            engine.play = well
            stage.control.change("m-0", slots=3)
            third.rest()
    assert third.status == 200


def test_a_full_queue_says_when_to_come_back(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    stage.control.show(models=(ModelView(name="m", names=("m",), queue_length=1),))
    stage.control.change("m-0", state=State.STARTING)
    stage.settle()
    with open_request(stage, CHAT, BODY):
        eventually(lambda: stage.number('nemotron_ops_queue_length{model="m"}') == 1)
        status, headers, body = call(stage, "POST", CHAT, BODY)
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert json.loads(body)["error"]["code"] == "queue_full"


def test_a_clients_patience_is_honoured(stage: Stage, engine: ScriptedEngine) -> None:
    stage.control.change("m-0", state=State.STARTING)
    stage.settle()
    status, _, body = call(stage, "POST", CHAT, BODY, X_Request_Timeout="0.1")
    assert status == 503
    assert json.loads(body)["error"]["code"] == "queue_timeout"


def test_an_on_demand_model_is_asked_for_and_waited_for(stage: Stage, engine: ScriptedEngine) -> None:
    stage.control.show(models=(ModelView(name="m", names=("m",), on_demand=True),))
    stage.control.change("m-0", state=State.STOPPED)
    stage.settle()
    stage.control.on_want = lambda name: stage.control.change("m-0", state=State.READY)
    assert call(stage, "POST", CHAT, BODY)[0] == 200
    assert set(stage.control.wants) == {"m"}  # it is asked for again if it takes long


def test_a_draining_instance_gets_nothing_new(stage: Stage, engine: ScriptedEngine, tmp_path: Path) -> None:
    other = ScriptedEngine(name="m-1", path=tmp_path / "o.sock", play=well).start()
    stage.control.show(instances=(engine.view(draining=True), other.view()))
    stage.settle()
    for _ in range(4):
        assert call(stage, "POST", CHAT, BODY)[1]["x-instance"] == "m-1"
    assert engine.heard == []
    other.stop()


def test_a_conversation_goes_back_to_its_instance(
    stage: Stage, engine: ScriptedEngine, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    other = ScriptedEngine(name="m-1", path=tmp_path / "o.sock", play=well).start()
    stage.control.show(instances=(engine.view(), other.view()))
    stage.settle()
    turns = [{"role": "user", "content": "one"}]
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, BODY):
        eventually(lambda: engine.heard)  # m-0, being the first, is busy; so m-1 is the emptier one
        eventually(lambda: stage.control.inflight == {"m-0": 1})  # and is known to be, until it no longer is
        assert call(stage, "POST", CHAT, {**BODY, "messages": turns})[1]["x-instance"] == "m-1"
    eventually(lambda: stage.control.inflight == {})
    engine.play = well
    assert (
        call(stage, "POST", CHAT, {**BODY, "messages": [{"role": "user", "content": "new"}]})[1]["x-instance"] == "m-0"
    )
    for n in range(3):
        turns += [{"role": "assistant", "content": "x"}, {"role": "user", "content": str(n)}]
        assert call(stage, "POST", CHAT, {**BODY, "messages": turns})[1]["x-instance"] == "m-1"
    other.stop()


@pytest.mark.parametrize(("policy", "content"), [("retry", "The answer is four."), ("report", "")])
def test_an_answer_lost_in_thought_is_retried_or_reported(
    stage: Stage, engine: ScriptedEngine, policy: str, content: str
) -> None:
    stage.control.show(models=(ModelView(name="m", names=("m",), lost_in_thought=policy),))
    stage.settle()
    engine.play = first_then(only_thinks, well)
    status, headers, body = call(stage, "POST", CHAT, BODY)
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == content
    assert ("x-lost-in-thought" in headers) is (policy == "report")


def test_a_connection_that_carried_a_whole_answer_is_used_again(stage: Stage, engine: ScriptedEngine) -> None:
    engine.play = keeps(b'{"tokens":[]}')
    for _ in range(5):
        assert call(stage, "POST", "/tokenize", {"content": "x"})[0] == 200
    assert len(engine.heard) == 1, "one connection for all"


def test_a_kept_connection_that_died_is_replaced_unseen(stage: Stage, engine: ScriptedEngine) -> None:
    engine.play = well  # closes after each answer without saying so
    for _ in range(5):
        assert call(stage, "POST", "/tokenize", {"content": "x"})[0] == 200
    assert stage.number('nemotron_ops_errors_total{cause="engine_lost",instance="m-0",model="m"}') == 0


# following the supervisor


def test_it_goes_on_while_the_supervisor_is_away_and_comes_back_to_it(
    stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    stage.control.stop()
    assert call(stage, "POST", CHAT, BODY)[0] == 200
    stage.control.show(models=(ModelView(name="m", names=("m", "renamed")),))
    stage.control.start()
    eventually(lambda: call(stage, "GET", "/v1/models/renamed")[0] == 200)


def test_requests_in_flight_are_reported(stage: Stage, engine: ScriptedEngine, eventually: Callable[..., None]) -> None:
    engine.play = hangs_after(1)
    with open_request(stage, CHAT, BODY):
        eventually(lambda: stage.control.inflight == {"m-0": 1})
    eventually(lambda: stage.control.inflight == {})


# keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


def make(keys: Path, name: str, **settings: Any) -> str:
    return keystore.create(keys, Key(id="", sha256="", name=name, **settings))[1]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[tuple[Stage, dict[str, str]]]:
    """A gateway with keys: one per scope, one for another model, one with a limit."""
    folder = tmp_path_factory.mktemp("locked")
    texts = {scope.value: make(keys, scope.value, scopes=(scope,)) for scope in Scope if scope is not Scope.PUBLIC}
    texts["elsewhere"] = make(keys, "elsewhere", models=("other",))
    texts["limited"] = make(keys, "limited", requests_per_minute=2)
    texts["none"], texts["wrong"] = "", "nok-00000000-wrong"
    engine = ScriptedEngine(name="m-0", path=folder / "e.sock", play=well).start()
    with gateway(folder, "--api-keys-file", str(keys), "--usage-file", str(folder / "usage.json")) as found:
        found.control.show(models=(MODEL,), instances=(engine.view(),))
        found.settle(texts["metrics"])
        yield found, texts
    engine.stop()


MATRIX = {
    ("GET", "/health"): {"none": 200, "wrong": 200, "inference": 200, "metrics": 200, "admin": 200},
    ("GET", "/v1/models"): {"none": 401, "wrong": 401, "inference": 200, "metrics": 403, "admin": 200},
    ("POST", CHAT): {"none": 401, "wrong": 401, "inference": 200, "metrics": 403, "admin": 200, "elsewhere": 403},
    ("POST", "/v1/messages"): {"none": 401, "wrong": 401, "inference": 200, "metrics": 403, "admin": 200},
    ("POST", "/tokenize"): {"none": 401, "wrong": 401, "inference": 200, "metrics": 403, "elsewhere": 403},
    ("GET", "/metrics"): {"none": 401, "wrong": 401, "inference": 403, "metrics": 200, "admin": 200},
    ("GET", "/slots"): {"none": 401, "wrong": 401, "inference": 403, "metrics": 403},
    ("GET", "/props"): {"none": 401, "wrong": 401, "inference": 403, "metrics": 403},
    ("GET", "/engine/metrics"): {"none": 401, "wrong": 401, "inference": 403, "metrics": 403},
}


@pytest.mark.parametrize(("method", "path", "who"), [(m, p, w) for (m, p), cells in MATRIX.items() for w in cells])
def test_the_matrix_of_keys_and_routes(locked: tuple[Stage, dict[str, str]], method: str, path: str, who: str) -> None:
    stage, texts = locked
    header = {"Authorization": f"Bearer {texts[who]}"} if texts[who] else {}
    status, _, body = call(stage, method, path, BODY if method == "POST" else None, **header)
    assert status == MATRIX[method, path][who], body


def test_anthropics_header_opens_too_and_errors_have_its_shape(locked: tuple[Stage, dict[str, str]]) -> None:
    stage, texts = locked
    assert call(stage, "POST", "/v1/messages", BODY, X_Api_Key=texts["inference"])[0] == 200
    status, _, body = call(stage, "POST", "/v1/messages", BODY, X_Api_Key="wrong")
    assert status == 401
    assert json.loads(body)["type"] == "error"
    assert json.loads(body)["error"]["type"] == "authentication_error"


def test_a_limited_key_gets_429_and_a_time(locked: tuple[Stage, dict[str, str]]) -> None:
    stage, texts = locked
    header = {"Authorization": f"Bearer {texts['limited']}"}
    answers = [call(stage, "POST", "/tokenize", {"content": "x"}, **header) for _ in range(3)]
    assert [a[0] for a in answers] == [200, 200, 429]
    assert 1 <= int(answers[2][1]["retry-after"]) <= 31


def test_a_new_key_works_and_a_revoked_one_stops_without_a_restart(
    locked: tuple[Stage, dict[str, str]], keys: Path, eventually: Callable[..., None]
) -> None:
    stage, _ = locked
    text = make(keys, "late")

    def status() -> int:
        return call(stage, "GET", "/v1/models", Authorization=f"Bearer {text}")[0]

    eventually(lambda: status() == 200)
    keystore.revoke(keys, "late", now=1.0)
    eventually(lambda: status() == 401)


def test_a_damaged_keys_file_keeps_the_old_keys(
    locked: tuple[Stage, dict[str, str]], keys: Path, eventually: Callable[..., None]
) -> None:
    stage, texts = locked
    good = keys.read_bytes()
    keys.write_bytes(b"{")
    eventually(lambda: "keeping the old one" in stage.log.read_text())
    assert call(stage, "GET", "/v1/models", Authorization=f"Bearer {texts['inference']}")[0] == 200
    assert call(stage, "GET", "/v1/models")[0] == 401
    keys.write_bytes(good)


# starting and stopping


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nemotron_ops.gateway", *flags]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_a_door_to_everywhere_without_keys_is_refused() -> None:
    done = run("--listen", "0.0.0.0:0")
    assert done.returncode == 11
    assert "no keys are configured" in done.stderr


def test_an_inherited_door_to_everywhere_without_keys_is_refused() -> None:
    with socket.create_server(("0.0.0.0", 0)) as s:
        argv = [sys.executable, "-m", "nemotron_ops.gateway", "--listen-fd", str(s.fileno())]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, pass_fds=(s.fileno(),))
    assert done.returncode == 11


def test_options_come_from_a_file_and_unknown_ones_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text('{"drain": 3}')
    done = run("--options", str(file))
    assert done.returncode == 2
    assert "drain_s" in done.stderr


def test_sigterm_lets_streams_end_and_takes_nothing_new(tmp_path: Path, eventually: Callable[..., None]) -> None:
    go_on = threading.Event()
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=pauses_after(3, go_on)).start()
    with gateway(tmp_path) as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        with open_request(stage, CHAT, {**BODY, "stream": True}) as answer:
            answer.until(b" answer")
            stage.process.send_signal(signal.SIGTERM)
            eventually(lambda: stage.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 0)
            assert stage.process.poll() is None
            go_on.set()
            raw = answer.rest()
        assert not answer.broken
        assert raw.endswith(b"data: [DONE]\n\n")
        assert stage.process.wait(timeout=30) == 0
    engine.stop()


def test_sigterm_cuts_what_does_not_end_in_time(tmp_path: Path) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(3)).start()
    with gateway(tmp_path, "--drain-s", "0.2") as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        with open_request(stage, CHAT, {**BODY, "stream": True}) as answer:
            answer.until(b" answer")
            assert stage.stop() == 0
            raw = answer.rest()
    assert answer.broken
    assert b"[DONE]" not in raw
    engine.stop()
