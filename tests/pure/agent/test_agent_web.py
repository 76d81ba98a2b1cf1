"""What one request may read of the web, what is cited, and approvals. No network: hits and pages are given."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.agent.apis.citing import Marks
from nemotron_ops.agent.apis.responses_history import read_input
from nemotron_ops.agent.approvals import Approvals
from nemotron_ops.agent.settings import Settings, load
from nemotron_ops.agent.tools.tool import Ran
from nemotron_ops.agent.tools.web import Domains, Opened, Web, WebTools
from nemotron_ops.errors import RecipeError, UsageError
from nemotron_ops.web.citations import Source
from nemotron_ops.web.reach import Reach
from nemotron_ops.web.search import Search
from nemotron_ops.web.settings import Web as WebFile
from nemotron_ops.web.settings import WebSettings

SOURCES = {1: Source(url="https://a.example/", title="A"), 2: Source(url="https://b.example/", title="B")}


def web() -> Web:
    """The web of a request whose pages cannot be reached: no name has an address."""

    async def nowhere(name: str, port: int) -> list[str]:
        raise OSError(f"no such host: {name}:{port}")

    tools = WebTools(search=Search(WebFile(settings=WebSettings())), reach=Reach(resolve=nowhere))
    return Web(lambda: tools, "key", 1000)


def read(found: Web, url: str, domains: Domains | None = None) -> Ran:
    return asyncio.run(found.read(url, domains or Domains()))


@pytest.mark.parametrize(
    ("tainted", "url", "error"),
    [
        (False, "https://c.example/", "url_not_accessible"),
        (True, "https://c.example/?secret=1", "url_not_in_prior_context"),
        (True, "https://said.example/page", "url_not_accessible"),
        (True, "https://said.example/page/#part", "url_not_accessible"),
        (True, "https://said.example/page?secret=1", "url_not_in_prior_context"),
        (True, "https://hit.example/x", "url_not_accessible"),
    ],
)
def test_after_a_text_of_the_web_only_known_addresses_are_read(tainted: bool, url: str, error: str) -> None:
    found = web()
    found.know_text("Look at https://said.example/page, please.")
    found.know(["https://hit.example/x"])
    found.tainted = tainted
    got = read(found, url)
    assert got.error == error
    assert isinstance(got.detail, Opened)


@pytest.mark.parametrize(
    ("domains", "url", "admitted"),
    [
        (Domains(), "https://a.example/x", True),
        (Domains(allowed=("a.example",)), "https://a.example/x", True),
        (Domains(allowed=("a.example",)), "https://www.a.example/x", True),
        (Domains(allowed=("a.example",)), "https://notA.example/x", False),
        (Domains(allowed=("a.example/blog",)), "https://a.example/blog/1", True),
        (Domains(allowed=("a.example/blog",)), "https://a.example/shop", False),
        (Domains(blocked=("a.example",)), "https://x.a.example/", False),
        (Domains(allowed=("a.example",), blocked=("x.a.example",)), "https://x.a.example/", False),
        (Domains(allowed=("a.example",)), "https://[", False),
    ],
)
def test_domains_admit_hosts_and_what_lies_below(domains: Domains, url: str, admitted: bool) -> None:
    assert domains.admit(url) == admitted


def test_a_mark_counts_once_its_line_is_whole() -> None:
    marks = Marks(SOURCES)
    assert marks.add("One [1] and `code") == []
    assert [it.number for it in marks.add(" [2]`\nTwo [")] == [1]
    assert marks.add("2] and [7]") == []
    assert [it.number for it in marks.end()] == [2]
    assert [marks.text[it.start : it.end] for it in marks.found] == ["[1]", "[2]"]


def test_sources_of_an_earlier_answer_keep_their_numbers() -> None:
    note = {"type": "url_citation", "start_index": 3, "end_index": 6, "url": "https://a.example/", "title": "A"}
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "So [4].", "annotations": [note]}]}
    got = read_input([{"role": "user", "content": "see https://u.example/"}, said])
    assert got.sources == {4: Source(url="https://a.example/", title="A")}
    assert got.history.tainted
    assert got.history.texts == ("see https://u.example/",)
    assert got.history.urls == ("https://a.example/",)


@pytest.mark.parametrize("value", [None, 5, "x", [], [1], [{"type": "web_search_call", "action": 3}], [{"role": 1}]])
def test_an_input_of_any_shape_is_read(value: Any) -> None:
    assert isinstance(read_input(value if isinstance(value, list) else [value]).items, list)


def test_an_approval_is_exact_and_kept(tmp_path: Path) -> None:
    book = Approvals(tmp_path, clock=lambda: 5.0)
    asked = book.ask("k1", "read_page", "{}")
    assert book.answer_to(asked) == ""
    book.answer(asked, yes=True, keep=True)
    assert book.answer_to(asked) == "yes"
    assert Approvals(tmp_path).is_allowed("k1", "read_page")
    assert not book.is_allowed("k1", "web_search")
    assert not book.is_allowed("k2", "read_page")
    with pytest.raises(UsageError, match="no such call waits"):
        book.answer(asked, yes=False, keep=False)
    book.drop(asked)
    assert book.answer_to(asked) == "no"
    assert book.revoke("read_page") == 1
    assert not book.is_allowed("k1", "read_page")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[budgets]\nturns = 0", "budgets.turns"),
        ("[budgets]\nturns = 1.5", "budgets.turns"),
        ("[budgets]\nturns = true", "budgets.turns"),
        ("[budgets]\nturn = 1", "unknown key"),
        ("[budgets]\nresult_share = 2.0", "result_share"),
        ("[approve]\nread_page = 'maybe'", "never, once or always"),
        ("[approvals]\n", "unknown table"),
        ("budgets = 3", "expected a table"),
        ("approve = 3", "expected a table"),
        ("[", "cannot read"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(RecipeError, match=word):
        load(tmp_path)


def test_settings_are_data(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings()
    (tmp_path / "agent.toml").write_text("[budgets]\nturns = 3\ntotal_s = 60\n[approve]\nread_page = 'once'\n")
    found = load(tmp_path)
    assert (found.budgets.turns, found.budgets.calls, found.budgets.total_s) == (3, 24, 60)
    assert [found.policy(name) for name in ("read_page", "web_search")] == ["once", "never"]
    given: Mapping[str, str] = found.approve
    assert given == {"read_page": "once"}
