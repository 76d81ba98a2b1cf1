"""Search providers as data: how each is asked, and what its answers mean. Pure.

A provider is its address, whether it needs a key, and two functions: one makes the request, one reads the results of
an answer with status 200. What other answers mean is the same for all, but for the few that `MEANINGS` lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from nemotron_ops.web.hits import Failure, Hit, Kind

MOST_PASSAGE = 1200  # letters of a passage
MOST_TEXT = 20_000  # letters of a page's text that a provider sends
MOST_SAID = 200  # letters of a provider's own words


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request to a provider."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to search for. `language` is a code like `en`, or empty for the provider's choice."""

    words: str
    count: int = 8
    language: str = ""


Ask = Callable[[str, str, Query], Request]  # base address, key, query
Found = Callable[[Any], list[Hit]]  # JSON of an answer with status 200


@dataclass(frozen=True, kw_only=True)
class Provider:
    """How one provider is asked and read."""

    base: str  # address; empty where it must be configured
    needs_key: bool
    ask: Ask
    found: Found
    terms: str  # where a key comes from, or what must be set


def _get(url: str, query: Mapping[str, str | int], headers: Mapping[str, str]) -> Request:
    words = {k: v for k, v in query.items() if v != ""}
    return Request(method="GET", url=f"{url}?{urlencode(words)}", headers={"Accept": "application/json", **headers})


def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Request:
    sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
    data = {k: v for k, v in body.items() if v != ""}
    return Request(method="POST", url=url, headers=sent, body=json.dumps(data).encode())


def _searxng(base: str, key: str, q: Query) -> Request:
    del key
    return _get(f"{base}/search", {"q": q.words, "format": "json", "language": q.language}, {})


def _brave(base: str, key: str, q: Query) -> Request:
    asked: dict[str, str | int] = {"q": q.words, "count": min(q.count, 20), "search_lang": q.language}
    return _get(f"{base}/res/v1/web/search", asked, {"X-Subscription-Token": key, "Cache-Control": "no-cache"})


def _tavily(base: str, key: str, q: Query) -> Request:
    asked = {"query": q.words, "max_results": min(q.count, 20), "search_depth": "basic"}
    return _post(f"{base}/search", asked, {"Authorization": f"Bearer {key}"})


def _exa(base: str, key: str, q: Query) -> Request:
    asked = {"query": q.words, "numResults": q.count, "contents": {"text": {"maxCharacters": MOST_TEXT}}}
    return _post(f"{base}/search", asked, {"x-api-key": key})


def _serper(base: str, key: str, q: Query) -> Request:
    return _post(f"{base}/search", {"q": q.words, "num": q.count, "hl": q.language}, {"X-API-KEY": key})


def _kagi(base: str, key: str, q: Query) -> Request:
    return _get(f"{base}/api/v0/search", {"q": q.words, "limit": q.count}, {"Authorization": f"Bot {key}"})


def _text(value: object, most: int = MOST_PASSAGE) -> str:
    return value[:most] if isinstance(value, str) else ""


def _reads(*path: str, url: str = "url", passage: str = "", date: str = "", text: str = "") -> Found:
    """A reader of results at `path` of an answer, by the names of their fields."""

    def found(answer: Any) -> list[Hit]:
        for name in path:
            answer = answer.get(name) or {}
        if not isinstance(answer, list):
            return []
        return [
            Hit(
                url=entry[url],
                title=_text(entry.get("title")),
                passage=_text(entry.get(passage)),
                date=_text(entry.get(date), 40),
                text=_text(entry.get(text), MOST_TEXT),
            )
            for entry in answer
            if isinstance(entry, dict) and _is_page(entry.get(url))
        ]

    return found


def _is_page(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        return False


PROVIDERS: dict[str, Provider] = {
    "searxng": Provider(
        base="",
        needs_key=False,
        ask=_searxng,
        found=_reads("results", passage="content", date="publishedDate"),
        terms="set `url` to your instance; its settings.yml needs `search: formats: [html, json]`",
    ),
    "brave": Provider(
        base="https://api.search.brave.com",
        needs_key=True,
        ask=_brave,
        found=_reads("web", "results", passage="description", date="page_age"),
        terms="a key comes from api-dashboard.search.brave.com",
    ),
    "tavily": Provider(
        base="https://api.tavily.com",
        needs_key=True,
        ask=_tavily,
        found=_reads("results", passage="content", date="published_date", text="raw_content"),
        terms="a key comes from app.tavily.com",
    ),
    "exa": Provider(
        base="https://api.exa.ai",
        needs_key=True,
        ask=_exa,
        found=_reads("results", passage="summary", date="publishedDate", text="text"),
        terms="a key comes from dashboard.exa.ai",
    ),
    "serper": Provider(
        base="https://google.serper.dev",
        needs_key=True,
        ask=_serper,
        found=_reads("organic", url="link", passage="snippet", date="date"),
        terms="a key comes from serper.dev",
    ),
    "kagi": Provider(
        base="https://kagi.com",
        needs_key=True,
        ask=_kagi,
        found=_reads("data", passage="snippet", date="published"),
        terms="a key comes from kagi.com/settings?p=api",
    ),
}

# (provider, status) whose meaning is the provider's own
MEANINGS: dict[tuple[str, int], Kind] = {
    ("brave", 422): "key",  # SUBSCRIPTION_TOKEN_INVALID
    ("tavily", 432): "throttled",  # the plan's limit
    ("tavily", 433): "throttled",  # the account's limit
}
STATUSES: dict[int, Kind] = {401: "key", 402: "throttled", 403: "key", 429: "throttled", 202: "throttled"}
SAYS: dict[Kind, str] = {
    "throttled": "it refuses further searches for now",
    "key": "it refuses the key",
    "empty": "it finds nothing",
    "broken": "its answer cannot be read",
}


def request(name: str, base: str, key: str, query: Query) -> Request:
    """The request that asks provider `name` for `query`. `base` replaces its own address where it is not empty."""
    provider = PROVIDERS[name]
    return provider.ask((base or provider.base).rstrip("/"), key, query)


def results(name: str, status: int, headers: Mapping[str, str], body: bytes) -> list[Hit] | Failure:
    """What an answer of provider `name` says. Header names are lower case."""
    kind = MEANINGS.get((name, status)) or STATUSES.get(status)
    if kind or status != 200:
        return _refused(name, kind or "broken", status, headers, body)
    try:
        found = PROVIDERS[name].found(json.loads(body))
    except (ValueError, AttributeError, TypeError, RecursionError):
        shown = headers.get("content-type", "no content type").partition(";")[0]
        return Failure(kind="broken", said=f"{name} does not answer with JSON of its own kind ({shown})")
    return found or Failure(kind="empty", said=f"{name} finds nothing for these words")


def _refused(name: str, kind: Kind, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    if name == "searxng" and status == 403:
        hint = PROVIDERS[name].terms
        return Failure(kind="broken", said="searxng refuses JSON (403)", hint=hint)
    words = _own_words(body)
    said = f"{name}: {SAYS[kind]} ({status})" + (f'; it says: "{words}"' if words else "")
    hint = PROVIDERS[name].terms if kind == "key" else ""
    return Failure(kind=kind, said=said, hint=hint, retry_after_s=_retry_after_s(headers))


def _own_words(body: bytes) -> str:
    """A provider's own words in an error, at most `MOST_SAID` letters; empty where there are none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        if isinstance(answer, list) and answer:
            answer = answer[0]
        if isinstance(answer, dict):
            names = ("error", "detail", "message", "msg")
            answer = next((answer[n] for n in names if answer.get(n)), None)
    words = answer if isinstance(answer, str) else ""
    return "".join(c if c.isprintable() else " " for c in words)[:MOST_SAID].strip()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds until the next search, from Retry-After or Brave's X-RateLimit-Reset (its first, shortest window)."""
    for name in ("retry-after", "x-ratelimit-reset"):
        value = headers.get(name, "").partition(",")[0].strip()
        if value.isdecimal():
            return float(value)
    return None
