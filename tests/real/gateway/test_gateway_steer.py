"""A client ends the thinking of its own stream, and of no other's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.supervisor.snapshot import State
from tests.fakes.stream_reader import put_together
from tests.stages.gateway import Answer, Stage, open_request, real_gateway

pytestmark = pytest.mark.real

PONDER = {"model": "tiny", "messages": [{"role": "user", "content": "Please ponder"}], "stream": True}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A keys file, and the texts of two keys in it."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    scopes = (Scope.INFERENCE, Scope.METRICS)
    made = [Key(id="", sha256="", name=name, scopes=scopes) for name in ("mine", "other")]
    mine, other = (keystore.create(path, key)[1] for key in made)
    return path, mine, other


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, keys: tuple[Path, str, str]) -> Iterator[Stage]:
    path, mine, _ = keys
    folder, long = tmp_path_factory.mktemp("real"), ("-c", "65536")  # more to think than a test takes
    with real_gateway(folder, llama_bin, "--api-keys-file", str(path), key=mine, extra=long) as found:
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def end_thinking(stage: Stage, key: str, answer_id: str, action: str = "reasoning_end") -> tuple[int, Any]:
    body = {"id": answer_id, "action": action}
    with open_request(stage, "/v1/chat/completions/control", body, headers=bearer(key)) as answer:
        text = answer.rest()
    return answer.status, json.loads(text)


def id_of(answer: Answer) -> str:
    answer.until(b'"reasoning_content"')
    found: bytes = re.findall(rb'"id":"(chatcmpl-[A-Za-z0-9]+)"', answer.data)[0]
    return found.decode()


def words_in(raw: bytes) -> str:
    deltas = [e["choices"][0]["delta"] for e in put_together(raw) if e != "[DONE]"]
    return "".join(d.get("content") or "" for d in deltas)


def test_thinking_ends_when_its_client_says_so(stage: Stage, keys: tuple[Path, str, str]) -> None:
    _, mine, other = keys
    with open_request(
        stage, "/v1/chat/completions", {**PONDER, "reasoning_control": True}, headers=bearer(mine)
    ) as answer:
        answer_id = id_of(answer)
        unknown = {"success": False, "message": "no active completion for this id"}
        assert end_thinking(stage, other, answer_id) == (200, unknown)
        assert end_thinking(stage, mine, "chatcmpl-nobody") == (200, unknown)
        assert end_thinking(stage, mine, answer_id, "explode")[0] == 400
        assert end_thinking(stage, mine, answer_id) == (200, {"success": True})
        raw = answer.rest()
    assert not answer.broken
    assert words_in(raw) == "Done."
    assert end_thinking(stage, mine, answer_id) == (200, unknown)


def test_thinking_ends_also_after_a_continuation(stage: Stage, keys: tuple[Path, str, str]) -> None:
    _, mine, _ = keys
    (engine,) = stage.engines
    with open_request(
        stage, "/v1/chat/completions", {**PONDER, "reasoning_control": True}, headers=bearer(mine)
    ) as answer:
        answer_id = id_of(answer)
        answer.until(b" well")  # the first word alone is another one to the tokenizer
        engine.kill()
        stage.control.change("tiny-0", state=State.BACKOFF)
        assert end_thinking(stage, mine, answer_id)[1].get("success") is not True, "there is nobody to tell"
        engine.start()
        stage.control.show(instances=(engine.view(),))
        while end_thinking(stage, mine, answer_id)[1].get("success") is not True:
            part = answer.socket.recv(1)
            assert part, f"the stream ended first: {answer.data[-500:]!r}"
            answer.data += part
        raw = answer.rest()
    assert not answer.broken
    assert words_in(raw) == "Done."


def test_who_did_not_ask_for_it_cannot_end_the_thinking(stage: Stage, keys: tuple[Path, str, str]) -> None:
    _, mine, _ = keys
    with open_request(stage, "/v1/chat/completions", PONDER, headers=bearer(mine)) as answer:
        assert end_thinking(stage, mine, id_of(answer))[1]["success"] is False
