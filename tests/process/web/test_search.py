"""Providers, asked over real HTTP on loopback in their documented shapes. Costs about 2 s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import RecipeError
from nemotron_ops.web.cache import Cache
from nemotron_ops.web.hits import Failure, Hit
from nemotron_ops.web.providers import PROVIDERS, Query
from nemotron_ops.web.search import Search
from nemotron_ops.web.settings import Web, WebSettings, load, settings_path
from tests.fakes.pages import Answer, Asked, serving

URL = "https://fjord.example/"
# provider -> its documented answer with one result, and where its key and words must arrive
SHAPES: dict[str, Any] = {
    "searxng": {"results": [{"url": URL, "title": "Fjord", "content": "long", "engine": "x", "publishedDate": "2026"}]},
    "brave": {
        "type": "search",
        "web": {"results": [{"url": URL, "title": "Fjord", "description": "long", "page_age": "2026"}]},
    },
    "tavily": {
        "query": "q",
        "results": [{"url": URL, "title": "Fjord", "content": "long", "raw_content": None, "score": 0.9}],
    },
    "exa": {"requestId": "x", "results": [{"url": URL, "title": "Fjord", "text": "the page", "publishedDate": "2026"}]},
    "serper": {"searchParameters": {}, "organic": [{"link": URL, "title": "Fjord", "snippet": "long", "position": 1}]},
    "kagi": {
        "meta": {},
        "data": [{"t": 0, "url": URL, "title": "Fjord", "snippet": "long"}, {"t": 1, "list": ["more"]}],
    },
}
KEYS = {
    "brave": ("x-subscription-token", "sesame"),
    "tavily": ("authorization", "Bearer sesame"),
    "exa": ("x-api-key", "sesame"),
    "serper": ("x-api-key", "sesame"),
    "kagi": ("authorization", "Bot sesame"),
}


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return Answer(status=status, headers={"Content-Type": "application/json", **named}, body=json.dumps(value).encode())


def web(provider: str, url: str, **more: Any) -> Web:
    return Web(settings=WebSettings(provider=provider, url=url, **more), key="sesame")


def ask(provider: str, script: Callable[[Asked], Answer]) -> tuple[list[Hit] | Failure, list[Asked]]:
    with serving(script) as pages:
        found = asyncio.run(Search(web(provider, pages.base)).search(Query(words=" longest   fjord ", count=3)))
    return found, pages.asked


def test_every_provider_has_its_shape_here() -> None:
    assert set(SHAPES) == set(PROVIDERS)
    assert set(KEYS) == {name for name, p in PROVIDERS.items() if p.needs_key}


@pytest.mark.parametrize("name", SHAPES)
def test_a_provider_is_asked_and_read_as_documented(name: str) -> None:
    found, (asked,) = ask(name, lambda _: json_answer(SHAPES[name]))
    assert isinstance(found, list)
    assert [(h.url, h.title) for h in found] == [(URL, "Fjord")]
    assert (found[0].passage or found[0].text) in ("long", "the page")
    assert "longest+fjord" in asked.target or b"longest fjord" in asked.body
    if name in KEYS:
        header, value = KEYS[name]
        assert asked.headers[header] == value
        assert "sesame" not in asked.target


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (json_answer({"error": "no such key"}, 401), "key"),
        (json_answer({"error": "slow down"}, 429, Retry_After="7"), "throttled"),
        (json_answer({}, 500), "broken"),
        (Answer(headers={"Content-Type": "text/html"}, body=b"<html>captcha"), "broken"),
        (json_answer([]), "broken"),
        (json_answer({}), "empty"),
        (json_answer({"results": [], "organic": [], "data": [], "web": {"results": []}}), "empty"),
        (json_answer({"results": [{"url": "file:///x"}, {"url": 5}, "x", {}], "web": None}), "empty"),
        (Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}), "broken"),
        (Answer(headers={"Content-Type": "application/json"}, body=b'{"results": [' + b"1" * 100, cut=60), "broken"),
        (Answer(headers={"Content-Type": "application/json"}, body=b"[" * 100_000), "broken"),
    ],
)
def test_what_a_provider_may_answer_has_its_meaning(name: str, answer: Answer, kind: str) -> None:
    found, asked = ask(name, lambda _: answer)
    assert isinstance(found, Failure)
    assert found.kind == kind
    assert len(asked) == 1
    assert "sesame" not in f"{found}"
    if kind == "throttled":
        assert found.retry_after_s == pytest.approx(7.0, abs=1.0)
        assert "do not search again" in found.hint


def test_searxng_without_json_names_the_setting() -> None:
    found, _ = ask("searxng", lambda _: Answer(status=403, headers={"Content-Type": "text/html"}, body=b"Forbidden"))
    assert isinstance(found, Failure)
    assert "formats: [html, json]" in found.hint


def test_a_throttled_provider_is_left_alone_until_it_may_be_asked() -> None:
    now = [0.0]
    refuses = [True]
    with serving(
        lambda _: json_answer({}, 429, Retry_After="30") if refuses[0] else json_answer(SHAPES["brave"])
    ) as pages:
        search = Search(web("brave", pages.base), clock=lambda: now[0])

        async def scenario() -> None:
            first = await search.search(Query(words="a"))
            second = await search.search(Query(words="b"))
            assert isinstance(first, Failure)
            assert isinstance(second, Failure)
            assert (second.kind, second.retry_after_s) == ("throttled", 30.0)
            assert len(pages.asked) == 1
            now[0], refuses[0] = 31.0, False
            assert isinstance(await search.search(Query(words="b")), list)

        asyncio.run(scenario())


def test_searches_of_a_key_are_limited_and_answers_are_cached_per_key(tmp_path: Path) -> None:
    with serving(lambda _: json_answer(SHAPES["exa"])) as pages:
        search = Search(web("exa", pages.base, searches_per_minute=2), Cache(tmp_path), clock=lambda: 0.0)

        async def scenario() -> None:
            for words in ("a", "a", "b", "a"):
                assert isinstance(await search.search(Query(words=words), key="k"), list)
            assert len(pages.asked) == 2
            limited = await search.search(Query(words="c"), key="k")
            assert isinstance(limited, Failure)
            assert "searches of this minute" in limited.said
            assert isinstance(await search.search(Query(words="a"), key="other"), list)
            assert len(pages.asked) == 3

        asyncio.run(scenario())


def test_a_provider_that_cannot_be_reached_is_said() -> None:
    found = asyncio.run(Search(web("searxng", "http://127.0.0.2:1")).search(Query(words="x")))
    assert isinstance(found, Failure)
    assert (found.kind, "cannot be reached" in found.said) == ("broken", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('provider = "altavista"', "no provider 'altavista'"),
        ('provider = "searxng"', "needs the address of your instance"),
        ('provider = "brave"\nurl = "file:///x"', "expected an http or https address"),
        ("provider = 5", "provider"),
        ("colour = 5", "colour"),
        ("provider = ", "cannot read"),
        ('key_file = "absent"', "is not a file"),
        ('key_file = "."', "is not a file"),
        ('key_file = "two"', "holds no key"),
        ("searches_per_minute = 0", "number from 1"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, said: str) -> None:
    settings_path(tmp_path).write_text(text)
    (tmp_path / "two").write_text("two words")
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, {})


def test_settings_with_a_key_file(tmp_path: Path) -> None:
    settings_path(tmp_path).write_text('provider = "kagi"\nkey_file = "key"\nallow = ["wiki.lan"]')
    (tmp_path / "key").write_text("sesame-open\n")
    found = load(tmp_path, {})
    assert (found.key, found.refusal, found.settings.allow) == ("sesame-open", "", ("wiki.lan",))
    assert "needs a key" in Web(settings=WebSettings(provider="kagi")).refusal
    assert load(tmp_path / "none", {}).refusal == "no provider is configured"
