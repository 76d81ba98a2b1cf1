"""Files and batches with the real openai client: results, rights, restarts, nothing while others wait. Costs 25 s."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import Heard, ScriptedEngine
from tests.stages.gateway import Stage, gateway

pytestmark = pytest.mark.process
CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
WITHIN_S = 30.0


def reply(s: socket.socket, text: str, status: int = 200) -> None:
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    value: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 1, "model": "e", "choices": [message]}
    if status != 200:
        value = {"error": {"code": status, "message": text, "type": "x"}}
    body = json.dumps(value).encode()
    s.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body)


class Host:
    """An engine that echoes, and holds answers to texts that begin with `hold` until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self.at_once = self.most = 0
        self._gate = threading.Lock()

    def play(self, s: socket.socket, request: Heard) -> None:
        if request.path == "/metrics":
            reply(s, "")
            return
        text = str(request.json["messages"][0]["content"])
        with self._gate:
            self.asked.append(text)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        if text.startswith("hold"):
            self.go.wait(WITHIN_S)
        with self._gate:
            self.at_once -= 1
        reply(s, f"echo {text}", 400 if text == "refuse" else 200)


@pytest.fixture
def host() -> Host:
    return Host()


def serve(stage: Stage, folder: Path, host: Host, key: str = "") -> ScriptedEngine:
    engine = ScriptedEngine(name="m-0", path=folder / "e.sock", play=host.play, pid=os.getpid(), slots=2).start()
    model = ModelView(name="m", names=("m",), queue_wait_s=20.0)
    stage.control.show(models=(model,), instances=(engine.view(),))
    stage.settle(key)
    return engine


@pytest.fixture
def stage(tmp_path: Path, host: Host) -> Iterator[Stage]:
    with gateway(tmp_path, "--batches-folder", str(tmp_path / "batches")) as found:
        engine = serve(found, tmp_path, host)
        yield found
        host.go.set()
        engine.stop()


def client(stage: Stage, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stage.url}/v1", api_key=key, max_retries=0)


def line(name: str, text: str, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": {"model": "m", "messages": messages, **body}}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def begin(api: openai.OpenAI, content: bytes) -> str:
    file = api.files.create(file=("in put.jsonl", content), purpose="batch")
    return api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"a": "b"}).id


def end(api: openai.OpenAI, batch: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while (found := api.batches.retrieve(batch)).status in ("validating", "in_progress", "finalizing", "cancelling"):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def results(api: openai.OpenAI, file: str | None) -> dict[str, Any]:
    assert file
    rows = [json.loads(text) for text in api.files.content(file).text.splitlines()]
    return {row["custom_id"]: row for row in rows}


def test_a_batch_of_good_and_bad_requests_ends_with_two_files(stage: Stage, host: Host) -> None:
    api = client(stage)
    lines = [line(f"q{i}", f"text {i}") for i in range(8)]
    batch = begin(api, jsonl(*lines, line("bad", "refuse"), line("other", "x") | {"body": {"model": "gone"}}))
    found = end(api, batch)
    assert found.status == "completed"
    assert (found.request_counts.total, found.request_counts.completed, found.request_counts.failed) == (10, 8, 2)
    assert found.metadata == {"a": "b"}
    good, bad = results(api, found.output_file_id), results(api, found.error_file_id)
    assert good["q3"]["response"]["status_code"] == 200
    assert good["q3"]["response"]["body"]["choices"][0]["message"]["content"] == "echo text 3"
    assert good.keys() == {f"q{i}" for i in range(8)}
    assert {name: row["response"]["status_code"] for name, row in bad.items()} == {"bad": 400, "other": 404}
    assert [b.id for b in api.batches.list()] == [batch]
    assert {f.purpose for f in api.files.list()} == {"batch", "batch_output"}
    assert api.files.delete(found.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        api.files.retrieve(found.input_file_id)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (jsonl(line("a", "x"), line("a", "y")), "is there twice"),
        (jsonl(line("a", "x", stream=True)), "whole answers only"),
        (jsonl(line("a", "x") | {"url": "/v1/embeddings"}), f"expected POST {CHAT}"),
        (b'{"custom_id": "a"}\n', "no request"),
        (b"not json\n", "no request"),
        (b"\n\n", "the file has no request"),
    ],
)
def test_an_input_with_a_fault_fails_whole_and_sends_nothing(
    stage: Stage, host: Host, content: bytes, why: str
) -> None:
    api = client(stage)
    found = end(api, begin(api, content))
    assert found.status == "failed"
    assert why in found.errors.data[0].message
    assert host.asked == []


def test_a_batch_leaves_a_slot_free_and_waits_while_others_wait(stage: Stage, host: Host) -> None:
    api = client(stage)
    batch = begin(api, jsonl(*(line(f"q{i}", f"hold {i}") for i in range(4))))
    until(lambda: len(host.asked) == 1)
    answers: list[str] = []

    def ask() -> None:
        found = client(stage).chat.completions.create(model="m", messages=[{"role": "user", "content": "now"}])
        answers.append(str(found.choices[0].message.content))

    ask()
    assert answers == ["echo now"]
    assert [text for text in host.asked if text.startswith("hold")] == ["hold 0"]
    host.go.set()
    assert end(api, batch).request_counts.completed == 4
    assert host.most <= 2


def test_a_cancelled_batch_keeps_what_was_answered(stage: Stage, host: Host) -> None:
    api = client(stage)
    batch = begin(api, jsonl(line("a", "quick"), line("b", "hold"), line("c", "never")))
    until(lambda: host.asked == ["quick", "hold"])
    assert api.batches.cancel(batch).status == "cancelling"
    host.go.set()
    found = end(api, batch)
    assert found.status == "cancelled"
    assert results(api, found.output_file_id).keys() == {"a", "b"}
    with pytest.raises(openai.BadRequestError, match="cancelled already"):
        api.batches.cancel(batch)


def test_a_killed_gateway_goes_on_with_what_is_left(tmp_path: Path, host: Host) -> None:
    flags = ("--batches-folder", str(tmp_path / "batches"))
    with gateway(tmp_path, *flags, code_ok=(-signal.SIGKILL,)) as first:
        engine = serve(first, tmp_path, host)
        batch = begin(client(first), jsonl(line("a", "one"), line("b", "hold"), line("c", "three")))
        until(lambda: host.asked == ["one", "hold"])
        first.process.kill()
        first.process.wait()
        engine.stop()
    with (tmp_path / "batches" / "batches" / f"{batch}.output").open("ab") as cut:
        cut.write(b'{"custom_id": "c", "resp')  # a line that the kill has cut
    host.go.set()
    with gateway(tmp_path, *flags) as second:
        engine = serve(second, tmp_path, host)
        api = client(second)
        found = end(api, batch)
        assert results(api, found.output_file_id).keys() == {"a", "b", "c"}
        assert host.asked == ["one", "hold", "hold", "three"]
        engine.stop()


def test_files_and_batches_are_private_to_a_key_and_end_with_its_rights(tmp_path: Path, host: Host) -> None:
    keys = tmp_path / "keys.json"
    mine, my_key = keystore.create(keys, Key(id="", sha256="", name="mine", scopes=(Scope.INFERENCE, Scope.METRICS)))
    _, other = keystore.create(keys, Key(id="", sha256="", name="other", models=("another",)))
    flags = ("--batches-folder", str(tmp_path / "batches"), "--api-keys-file", str(keys))
    with gateway(tmp_path, *flags) as stage:
        engine = serve(stage, tmp_path, host, my_key)
        api = client(stage, my_key)
        batch = begin(api, jsonl(line("a", "hold"), line("b", "later")))
        until(lambda: host.asked == ["hold"])
        strange = client(stage, other)
        assert list(strange.batches.list()) == []
        with pytest.raises(openai.NotFoundError):
            strange.batches.retrieve(batch)
        with pytest.raises(openai.NotFoundError):
            strange.batches.create(input_file_id=api.files.list().data[0].id, endpoint=CHAT, completion_window="24h")
        keystore.revoke(keys, mine.id, now=time.time())
        state = tmp_path / "batches" / "batches" / f"{batch}.json"
        until(lambda: json.loads(state.read_bytes())["status"] == "completed")
        host.go.set()
        assert json.loads(state.read_bytes())["failed"] == 2
        refused = end(strange, begin(strange, jsonl(line("x", "not for me"))))
        assert results(strange, refused.error_file_id)["x"]["response"]["status_code"] in (403, 404)
        assert host.asked == ["hold"]
        engine.stop()


def test_a_gateway_without_the_folder_says_so(tmp_path: Path) -> None:
    with gateway(tmp_path) as stage, pytest.raises(openai.InternalServerError, match="runs no batches"):
        client(stage).batches.list()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"endpoint": "/v1/audio/transcriptions"}, "endpoint: expected one of"),
        ({"completion_window": "1h"}, "completion_window: only '24h'"),
        ({"input_file_id": "file-none"}, "no file 'file-none'"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"extra_body": {"output_expires_after": {}}}, "is not honoured"),
    ],
)
def test_what_is_not_honoured_is_refused(stage: Stage, given: dict[str, Any], why: str) -> None:
    api = client(stage)
    file = api.files.create(file=("a.jsonl", jsonl(line("a", "x"))), purpose="batch").id
    asked: dict[str, Any] = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **given}
    with pytest.raises(openai.APIStatusError, match=why):
        api.batches.create(**asked)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        api.files.create(file=("a.jsonl", b"x"), purpose="fine-tune")


def until(check: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)
