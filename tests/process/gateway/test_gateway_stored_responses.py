"""Responses that are stored: continued, private to a key, bounded, and there after a kill. Disk, one second."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.responses import store as store_module
from nemotron_ops.gateway.responses.store import Kept, Store
from tests.fakes.calls import bearer, make, served
from tests.fakes.scripted_engine import TEXT_OF_WORDS, ScriptedEngine, well

pytestmark = pytest.mark.process


def name(n: int) -> str:
    return f"resp_{n:032x}"


def kept(text: str, *, key: str = "a", previous: str = "") -> Kept:
    item = {"id": f"msg_{1:032x}_0", "type": "message", "role": "assistant", "content": text}
    return Kept(key=key, previous=previous, input=[{"role": "user", "content": "?"}], response={"output": [item]})


def test_a_conversation_is_found_again_by_another_process(tmp_path: Path) -> None:
    first = Store(str(tmp_path / "r"), 1 << 20)
    first.keep(name(1), kept("one"))
    first.keep(name(2), kept("two", previous=name(1)))
    first.close()
    (file, _) = sorted((tmp_path / "r").iterdir())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Store(str(tmp_path / "r"), 1 << 20)
    said = [item["content"] for item in again.conversation(name(2), "a")]
    assert said == ["?", "one", "?", "two"]


@pytest.mark.parametrize("folder", ["", "r"])
def test_a_response_is_private_to_its_key(tmp_path: Path, folder: str) -> None:
    store = Store(str(tmp_path / folder) if folder else "", 1 << 20)
    store.keep(name(1), kept("one"))
    assert store.get(name(1), "b") is None
    assert store.item(f"msg_{1:032x}_0", "b") is None
    assert not store.delete(name(1), "b")
    with pytest.raises(Refusal, match="no response"):
        store.conversation(name(1), "b")
    assert store.delete(name(1), "a")
    assert store.get(name(1), "a") is None
    store.close()
    assert not folder or list((tmp_path / folder).iterdir()) == []


def test_the_oldest_make_room_and_those_in_use_stay(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 40_000)
    store.keep(name(1), kept("x" * 5000))
    for n in range(2, 20):
        store.keep(name(n), kept("y" * 5000))
        store.conversation(name(1), "a")
    assert store.bytes <= 40_000
    assert store.get(name(2), "a") is None
    assert store.get(name(1), "a") is not None
    store.keep(name(50), kept("z" * 20_000))  # larger than a quarter of the room
    assert store.get(name(50), "a") is None
    store.close()
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 40_000


@pytest.mark.parametrize("asked", ["resp_../../etc/passwd", "resp_", "x", f"{name(1)}/.."])
def test_an_id_from_a_client_names_no_other_file(tmp_path: Path, asked: str) -> None:
    store = Store(str(tmp_path / "r"), 1 << 20)
    (tmp_path / "passwd.json").write_text("{}")
    assert store.get(asked, "a") is None
    store.close()


def test_a_damaged_file_is_no_response(tmp_path: Path) -> None:
    (tmp_path / f"{name(1)}.json").write_bytes(b'{"key":"a","resp')
    (tmp_path / f".{name(2)}.json.x.tmp").write_bytes(b"{")
    store = Store(str(tmp_path), 1 << 20)
    assert store.get(name(1), "a") is None
    store.close()


def test_what_was_deleted_is_gone_while_its_file_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> None:
        writing.set()
        go_on.wait(10)
        path.write_bytes(data)

    monkeypatch.setattr(store_module, "write_file", slow)
    store = Store(str(tmp_path), 1 << 20)
    file = tmp_path / f"{name(1)}.json"
    file.write_bytes(msgspec.json.encode(Kept(key="a")))
    assert store.get(name(1), "a") is not None
    store.keep(name(2), Kept(key="a"))
    assert writing.wait(10)
    assert store.delete(name(1), "a")
    assert file.exists()
    assert store.get(name(1), "a") is None
    go_on.set()
    eventually(lambda: not file.exists())
    assert store.get(name(2), "a") is not None
    store.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    found = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    yield found
    found.stop()


def test_a_turn_goes_on_after_the_gateway_was_killed(
    tmp_path: Path, engine: ScriptedEngine, eventually: Callable[..., None]
) -> None:
    keys, folder = tmp_path / "keys.json", tmp_path / "responses"
    text = make(keys, "mine", scopes=(Scope.INFERENCE, Scope.METRICS))
    mine, other = bearer(text), bearer(make(keys, "other"))
    flags = ("--api-keys-file", str(keys), "--responses-folder", str(folder))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    def post(url: str, head: dict[str, str], **fields: Any) -> httpx.Response:
        return httpx.post(f"{url}/v1/responses", json={"model": "m", **fields}, headers=head, timeout=30)

    with served(tmp_path / "a", engine, *flags, key=text) as stage:
        first = post(stage.url, mine, input="one").json()
        hidden = post(stage.url, mine, input="two", store=False).json()
        eventually(lambda: [f.stem for f in folder.glob("*.json")] == [first["id"]])
        stage.process.kill()
        stage.process.wait()
        stage.process.returncode = 0  # the stage expects an end of its own
    with served(tmp_path / "b", engine, *flags, key=text) as stage:
        engine.heard.clear()
        second = post(stage.url, mine, input="more", previous_response_id=first["id"])
        assert second.status_code == 200, second.text
        assert second.json()["previous_response_id"] == first["id"]
        sent = [(m["role"], m["content"]) for m in engine.heard[-1].json["messages"]]
        assert sent == [("user", "one"), ("assistant", TEXT_OF_WORDS), ("user", "more")]
        for head, asked in ((other, first["id"]), (mine, hidden["id"]), (mine, "resp_none")):
            refused = post(stage.url, head, input="more", previous_response_id=asked)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
        url = f"{stage.url}/v1/responses/{first['id']}"
        assert httpx.get(url, headers=other).status_code == 404
        assert httpx.get(url, headers=mine).json()["output"] == first["output"]
        assert httpx.get(f"{url}/input_items", headers=mine).json()["data"][0]["content"] == "one"
        assert httpx.delete(url, headers=mine).json() == {"id": first["id"], "object": "response", "deleted": True}
        assert httpx.get(url, headers=mine).status_code == 404
        eventually(lambda: not (folder / f"{first['id']}.json").exists())
