"""Reads one page as text: reach, decode, extract, cache. Disk, network."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemotron_ops.web.cache import Cache
from nemotron_ops.web.page_text import PageText, page_text
from nemotron_ops.web.reach import Fetched, Reach, Unreachable

FRESH_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page as text: what `page_text` finds, where it was, and whether it was cut at the bound."""

    url: str
    title: str
    text: str
    date: str = ""
    links: tuple[str, ...] = ()
    cut: bool = False
    etag: str = ""


async def read_page(url: str, reach: Reach, cache: Cache | None = None, *, key: str = "") -> Page:
    """The page at `url` as text, from `cache` where it is fresh. Raises Unreachable, HostError."""
    kept = cache and cache.get(key, f"page {url}")
    known = _from_cache(kept[0]) if kept else None
    if known and kept and kept[1] < FRESH_S:
        return known
    fetched = await reach.fetch(url, etag=known.etag if known else "")
    if fetched.status == 304 and known:
        page = known
    else:
        page = await _made(fetched, url)
    if cache:
        cache.put(key, f"page {url}", asdict(page))
    return page


async def _made(fetched: Fetched, url: str) -> Page:
    if fetched.status != 200:
        raise Unreachable(f"cannot read {url}: the server answers {fetched.status}")
    full_type = fetched.headers.get("content-type", "")
    found: PageText = await asyncio.to_thread(page_text, fetched.body, url=fetched.url, content_type=full_type)
    etag = fetched.headers.get("etag", "")[:200]
    made = Page(url=fetched.url, title=found.title, text=found.text, date=found.date, links=found.links, etag=etag)
    return replace(made, cut=fetched.cut)


def _from_cache(value: Any) -> Page | None:
    try:
        return Page(**{**value, "links": tuple(value["links"])})
    except (TypeError, KeyError):
        return None
