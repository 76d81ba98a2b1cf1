"""The page's process against a scripted endpoint: answers that are never lost, walls, sessions. Costs about 15 s."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.studio.guard import HEADERS
from nemotron_ops.studio.login.attempts import FREE
from tests.fakes.endpoint import Script, endpoint
from tests.stages.studio import PASSWORD, Page, page, wait_for


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Script]]:
    """One process for the tests that leave it as it is; each gets a script of its own, and chats of its own."""
    script = Script()
    with endpoint(script) as base, page(tmp_path_factory.mktemp("page") / "studio", base) as made:
        made.set_up()
        yield made, script


@pytest.fixture
def script(shared: tuple[Page, Script]) -> Script:
    shared[1].gate.set()
    shared[1].__init__()  # type: ignore[misc]
    return shared[1]


@pytest.fixture
def studio(shared: tuple[Page, Script], script: Script) -> Page:
    return shared[0]


@pytest.fixture
def own(tmp_path: Path, script: Script, shared: tuple[Page, Script]) -> Iterator[Page]:
    """A process of the test's own, which it may kill or log out of."""
    with page(tmp_path / "studio", shared[0].endpoint) as made:
        made.set_up()
        yield made


# before a login


def test_nothing_is_told_before_a_login(tmp_path: Path, script: Script) -> None:
    with endpoint(script) as base, page(tmp_path / "studio", base) as studio:
        for path in ("/chat", "/models", "/settings", "/"):
            answer = studio.http.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/chat" if path == "//" else "/setup")
        for path in ("/api/chats", "/api/status", "/feed?chats=a:0", "/files/" + "0" * 64, "/api/sessions"):
            answer = studio.http.get(path)
            assert answer.status_code == 401
            assert str(tmp_path) not in answer.text
        wrong = studio.post("/api/setup", code="guess", password=PASSWORD)
        assert wrong.status_code == 403
        assert studio.post("/api/login", password="").status_code == 403
        studio.set_up()
        assert studio.http.get("/api/chats").json() == []
        assert studio.http.get("/setup").headers["location"] == "/login"


def test_every_answer_has_the_headers(studio: Page) -> None:
    for path in ("/chat", "/api/chats", "/static/base.js", "/nothing", "/login", "/health"):
        answer = studio.http.get(path)
        for name, value in HEADERS.items():
            if name != "Cache-Control":
                assert answer.headers[name.lower()] == value, (path, name)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(studio: Page, headers: dict[str, str], status: int) -> None:
    sent = {"Content-Type": "application/json", **headers}
    before = studio.http.get("/api/chats").json()
    answer = studio.http.post("/api/chats", content=b'{"title":"x"}', headers=sent)
    assert answer.status_code == status
    assert studio.http.get("/api/chats").json() == before


def test_guesses_of_the_password_are_slowed(own: Page) -> None:
    for _ in range(FREE):
        assert own.post("/api/login", password="wrong").status_code == 403
    answer = own.post("/api/login", password="wrong")
    assert (answer.status_code, "try again" in answer.json()["error"]) == (429, True)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_session_that_is_ended_is_out_and_another_goes_on(own: Page) -> None:
    other = Page(own.folder, own.endpoint, own.sock)
    assert other.post("/api/login", password=PASSWORD).status_code == 200
    listed = own.http.get("/api/sessions").json()
    assert [s["this"] for s in listed].count(True) == 1
    own.post("/api/logout", others=True)
    assert other.http.get("/api/chats").status_code == 401
    assert own.http.get("/api/chats").status_code == 200
    assert own.post("/api/password", old="wrong", new="another horse").status_code == 403
    assert own.post("/api/password", old=PASSWORD, new="another horse").status_code == 200
    assert own.http.get("/api/chats").status_code == 200
    other.http.close()


# answers


def test_an_answer_is_streamed_stored_and_told_with_its_numbers(studio: Page, script: Script) -> None:
    script.thinking = ["hm ", "hm"]
    chat = studio.new_chat(temperature=0)
    studio.ask(chat, "Count.")
    last = studio.wait_state(chat, "done")
    assert (last["content"], last["thinking"]) == ("one two three", ["<p>hm hm</p>\n"])
    assert last["made_by"]["usage"]["completion_tokens"] == 5
    assert script.asked[0]["messages"] == [{"role": "user", "content": "Count."}]
    assert script.asked[0]["temperature"] == 0.0
    assert studio.http.get("/api/chats").json()[0]["title"] == "Count."
    assert chat in [c["id"] for c in studio.http.get("/api/chats?words=three").json()]
    assert studio.http.get("/api/chats?words=absent%25").json() == []


def feed(studio: Page, chat: str, since: int, until: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with studio.http.stream("GET", f"/feed?chats={chat}:{since}") as answer:
        for line in answer.iter_lines():
            found = json.loads(line)
            lines.append(found)
            if until(found):
                return lines
    return lines


def test_a_tab_that_joins_again_by_number_misses_nothing(studio: Page, script: Script) -> None:
    script.tokens = [f"word{n} " for n in range(40)]
    script.hold_at = 20
    chat = studio.new_chat()
    studio.ask(chat, "Go.")
    first = feed(studio, chat, 0, lambda line: line.get("n", 0) >= 20)
    script.gate.set()
    rest = feed(studio, chat, first[-1]["at"], lambda line: line.get("end"))
    assert [line["at"] for line in first + rest] == list(range(1, len(first + rest) + 1))
    blocks: dict[int, str] = {}
    for line in first + rest:
        blocks.update(line.get("p", []))
    assert "".join(blocks.values()) == "".join(studio.last(chat)["html"])
    gone = feed(studio, chat, 99_999, lambda line: True)
    assert gone[0]["lost"] is True


@pytest.mark.parametrize("round", range(12))
def test_an_end_in_the_middle_of_a_rendering_drops_no_block(studio: Page, script: Script, round: int) -> None:
    script.tokens = [f"word{n} " + ("\n\n```py\nx = 1\n```\n\n" if n % 9 == 0 else "") for n in range(160)]
    script.hold_at, script.pace_s = 10, 0.0004 + round * 0.0001  # the end comes at another moment of a tick each time
    chat = studio.new_chat()
    studio.ask(chat, "Go.")
    script.gate.set()
    blocks: dict[int, str] = {}
    for line in feed(studio, chat, 0, lambda line: line.get("end")):
        blocks.update(line.get("p", []))
    assert "".join(blocks[n] for n in sorted(blocks)) == "".join(studio.last(chat)["html"])


def test_stop_closes_the_request_at_once_and_keeps_what_came(studio: Page, script: Script) -> None:
    script.hold_at = 2
    chat = studio.new_chat()
    turn = studio.ask(chat, "Go.")
    wait_for(lambda: studio.last(chat)["content"] == "one two ")
    begun = time.monotonic()
    assert studio.post(f"/api/messages/{turn}/stop").json() == {"stopped": True}
    last = studio.wait_state(chat, "stopped")
    assert last["content"] == "one two "
    assert script.gone.wait(10)
    assert time.monotonic() - begun < 10
    assert studio.post(f"/api/messages/{turn}/stop").json() == {"stopped": False}


def test_an_answer_that_was_cut_goes_on_without_losing_or_repeating_a_letter(studio: Page, script: Script) -> None:
    script.cut_at = 2
    chat = studio.new_chat()
    turn = studio.ask(chat, "Go.")
    assert studio.wait_state(chat, "cut")["content"] == "one two "
    script.cut_at, script.tokens = -1, ["three"]
    assert studio.post(f"/api/messages/{turn}/continue").status_code == 201
    assert studio.wait_state(chat, "done")["content"] == "one two three"
    assert script.asked[1]["messages"][-1] == {"role": "assistant", "content": "one two "}
    assert script.asked[1]["continue_final_message"] is True


def test_a_kill_loses_at_most_a_second_and_the_turn_offers_to_continue(own: Page, script: Script) -> None:
    script.tokens = [f"{n} " for n in range(2000)]
    script.pace_s = 0.01
    chat = own.new_chat()
    own.ask(chat, "Go.")
    wait_for(lambda: len(own.last(chat)["content"].split()) > 150)
    seen = len(own.last(chat)["content"].split())
    own.kill()
    own.start()
    last = own.last(chat)
    assert (last["state"], last["may_continue"]) == ("cut", True)
    kept = last["content"].split()
    assert kept == [str(n) for n in range(len(kept))]
    assert len(kept) > seen - 150  # a second and a half at this pace, on a busy machine


def test_an_answer_goes_on_when_no_tab_looks(studio: Page, script: Script) -> None:
    script.hold_at = 1
    chat = studio.new_chat()
    studio.ask(chat, "Go.")
    feed(studio, chat, 0, lambda line: line.get("n", 0) >= 1)
    script.gate.set()
    assert studio.wait_state(chat, "done")["content"] == "one two three"


@pytest.mark.parametrize(
    ("status", "said"), [(429, "the queue is full"), (400, "prompt is too long"), (503, "no model")]
)
def test_a_refusal_is_told_in_its_own_words(studio: Page, script: Script, status: int, said: str) -> None:
    script.status, script.error = status, said
    chat = studio.new_chat()
    studio.ask(chat, "Go.")
    last = studio.wait_state(chat, "failed")
    assert last["error"] == said


def test_an_endpoint_that_is_gone_is_said(tmp_path: Path) -> None:
    with page(tmp_path / "studio", "http://127.0.0.1:1/v1") as studio:
        studio.set_up()
        chat = studio.new_chat()
        studio.ask(chat, "Go.")
        assert "cannot be reached" in studio.wait_state(chat, "failed")["error"]
        status = studio.http.get("/api/status").json()
        assert "cannot reach a supervisor" in status["supervisor"]["error"]


# branches


def test_edits_and_other_answers_keep_every_branch(studio: Page, script: Script) -> None:
    chat = studio.new_chat()
    studio.ask(chat, "First.")
    first = studio.wait_state(chat, "done")
    script.tokens = ["other"]
    assert studio.post(f"/api/messages/{first['id']}/regenerate").status_code == 201
    second = studio.wait_state(chat, "done")
    assert (second["content"], second["siblings"]) == ("other", [first["id"], second["id"]])
    studio.ask(chat, "Second question.")
    studio.wait_state(chat, "done")
    edited = studio.post(f"/api/messages/{second['id']}/edit", content="edited").json()
    assert edited["content"] == "edited"
    assert [m["content"] for m in studio.messages(chat)] == ["First.", "edited", "Second question.", "other"]
    studio.post(f"/api/chats/{chat}", show=first["id"])
    assert [m["content"] for m in studio.messages(chat)] == ["First.", "one two three"]
    fork = studio.post(f"/api/messages/{second['id']}/fork").json()["id"]
    assert [m["content"] for m in studio.messages(fork)] == ["First.", "edited"]
    exported = studio.http.get(f"/api/chats/{fork}/export.jsonl")
    assert json.loads(exported.text)["messages"][1]["content"] == "edited"


def test_a_question_behind_a_running_answer_is_refused(studio: Page, script: Script) -> None:
    script.hold_at = 0
    chat = studio.new_chat()
    turn = studio.ask(chat, "Go.")
    answer = studio.post(f"/api/chats/{chat}/ask", content="More.", parent=turn)
    assert answer.status_code == 409


def test_a_long_chat_shows_its_end_first(studio: Page) -> None:
    chat = studio.new_chat()
    for n in range(12):
        studio.ask(chat, f"q{n}")
        studio.wait_state(chat, "done")
    shown = studio.http.get(f"/api/chats/{chat}").json()
    assert (len(shown["messages"]), shown["earlier"]) == (20, True)
    earlier = studio.http.get(f"/api/chats/{chat}?before={shown['messages'][0]['id']}").json()
    assert [m["content"] for m in earlier["messages"]] == ["q0", "one two three", "q1", "one two three"]


# files and settings


def test_files_are_read_as_text_pictures_kept_and_the_rest_refused(studio: Page, script: Script) -> None:
    token = studio.http.get("/chat").text.partition('form-token" content="')[2].partition('"')[0]
    sent = {"Content-Type": "application/x-www-form-urlencoded", "X-Form-Token": token}
    kept = studio.http.post("/api/files?name=a.py", content=b"x = 1\n", headers=sent).json()
    assert kept["text"] == "x = 1\n"
    picture = studio.http.post(
        "/api/files?name=p.png", content=b"\x89PNG", headers={**sent, "X-File-Type": "image/png"}
    )
    seen = studio.http.get(f"/files/{picture.json()['sha256']}?type=image/png")
    assert (seen.content, seen.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert (
        studio.http.get(f"/files/{kept['sha256']}?type=text/html").headers["content-type"] == "application/octet-stream"
    )
    assert studio.http.post("/api/files?name=b", content=b"\x00\x01", headers=sent).status_code == 415
    assert studio.http.post("/api/files?name=b", content=b"x", headers={**sent, "X-Form-Token": "x"}).status_code == 403
    assert studio.http.get("/files/..%2f..%2flogin.json").status_code == 404
    chat = studio.new_chat()
    studio.ask(chat, "Why?", attachments=[kept, picture.json()])
    studio.wait_state(chat, "done")
    parts = script.asked[-1]["messages"][0]["content"]
    assert parts[0]["text"].startswith("[file: a.py]\nx = 1")
    assert parts[1]["image_url"]["url"] == "data:image/png;base64,iVBORw=="


def pdf(content: bytes, *, packed: bool = False) -> bytes:
    """A PDF of one page that draws `content`."""
    stream = zlib.compress(content) if packed else content
    how = b"/Filter /FlateDecode " if packed else b""
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R"
        b" /Resources << /Font << /F 5 0 R >> >> >>",
        b"<< %s/Length %d >>\nstream\n%s\nendstream" % (how, len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    whole, places = bytearray(b"%PDF-1.4\n"), []
    for number, part in enumerate(parts, start=1):
        places.append(len(whole))
        whole += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % at for at in places)
    start = len(whole)
    whole += b"xref\n0 6\n0000000000 65535 f \n" + table
    return bytes(whole) + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start


def test_a_pdf_is_read_as_text_and_a_hostile_one_costs_the_page_nothing(studio: Page) -> None:
    token = studio.http.get("/chat").text.partition('form-token" content="')[2].partition('"')[0]
    sent = {"Content-Type": "application/x-www-form-urlencoded", "X-Form-Token": token}

    def upload(data: bytes) -> httpx.Response:
        return studio.http.post("/api/files?name=a.pdf", content=data, headers=sent)

    words = b"BT /F 18 Tf 20 100 Td (Two plus two) Tj ET"
    assert "Two plus two" in upload(pdf(words)).json()["text"]
    refused = upload(pdf(b""))
    assert (refused.status_code, "no text" in refused.json()["error"]) == (415, True)
    for hostile in (b"%PDF-1.4 nonsense", pdf(words)[:200], pdf(b" " * (400 << 20), packed=True)):
        assert upload(hostile).status_code == 415
    assert studio.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        ("/api/chats", {"settings": {"temperature": "hot"}}, 400),
        ("/api/chats", {"title": 5}, 400),
        ("/api/chats/absent/ask", {"content": "x"}, 404),
        ("/api/messages/absent/edit", {"content": "x"}, 404),
        ("/api/instances", {"verb": "rm", "names": ["x"]}, 400),
        ("/api/fetch", {"model": "--help"}, 400),
        ("/api/presets", {"name": " "}, 400),
    ],
)
def test_bad_requests_get_a_text(studio: Page, path: str, value: dict[str, Any], status: int) -> None:
    answer = studio.post(path, **value)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
    assert studio.http.post(path, content=b"[", headers={"Content-Type": "application/json"}).status_code in (400, 404)


def test_presets_drafts_and_the_gauge(studio: Page) -> None:
    assert studio.post("/api/presets", name="exact", settings={"temperature": 0}).json() == {
        "exact": {"temperature": 0.0}
    }
    assert studio.post("/api/presets", name="exact", remove=True).json() == {}
    chat = studio.new_chat()
    studio.post(f"/api/chats/{chat}", draft="half a question", pinned=True, title="A title")
    shown = studio.http.get(f"/api/chats/{chat}").json()
    assert (shown["draft"], shown["pinned"], shown["title"]) == ("half a question", True, "A title")
    assert studio.post(f"/api/chats/{chat}/count", content="x").json() == {"tokens": 7}
    studio.post(f"/api/chats/{chat}", delete=True)
    assert studio.http.get(f"/api/chats/{chat}").status_code == 404


def test_a_stop_of_the_process_stores_running_answers(own: Page, script: Script) -> None:
    script.hold_at = 2
    chat = own.new_chat()
    own.ask(chat, "Go.")
    wait_for(lambda: own.last(chat)["content"] == "one two ")
    assert own.process is not None
    own.process.terminate()
    own.process.wait(15)
    own.start()
    last = own.last(chat)
    assert (last["state"], last["content"]) == ("cut", "one two ")
