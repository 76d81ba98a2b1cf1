"""The web as one request sees it: searches, pages, numbers of sources, and which addresses may be read. httpx, disk.

The taint rule: once a request has read a text of the web, it reads pages only at addresses that the person gave, that a
search found or that a page it read links to. A text that tells the model to fetch `https://…/?secret` sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nemotron_ops.agent.tools.tool import Ran
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.web.cache import Cache
from nemotron_ops.web.citations import Source
from nemotron_ops.web.frame import framed, listed
from nemotron_ops.web.hits import Failure, Hit
from nemotron_ops.web.providers import Query
from nemotron_ops.web.reach import Reach
from nemotron_ops.web.read import Page, read_page
from nemotron_ops.web.search import Search

ADDRESS = re.compile(r"https?://[^\s<>\"'`\\^{}|]+")
TRAILING = ".,;:!?)]*_"
ERRORS = {"throttled": "too_many_requests", "key": "unavailable", "broken": "unavailable"}
MOST_WORDS = 400  # letters of a query, as the search takes them


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Hosts whose pages count: `allowed`, if any, and never `blocked`; each with the hosts below it."""

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    def admit(self, url: str) -> bool:
        """Whether a page at `url` may be shown."""
        try:
            parts = urlsplit(url)
            place = f"{parts.hostname or ''}{parts.path}"
        except ValueError:
            return False
        return not _any(place, self.blocked) and (not self.allowed or _any(place, self.allowed))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search gave: the query, and its hits with the numbers that they are cited by."""

    query: str
    hits: tuple[Hit, ...] = ()
    first: int = 1


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A page that was asked for, and its text if it was read."""

    url: str
    page: Page | None = None


@dataclass(frozen=True, kw_only=True)
class WebTools:
    """What all requests share: one search (its limits count all of a key's requests), one reach, one cache."""

    search: Search
    reach: Reach
    cache: Cache | None = None


@dataclass
class Web:
    """One request's view of the web."""

    tools: Callable[[], WebTools]
    key: str
    letters: int
    sources: dict[int, Source] = field(default_factory=dict)
    tainted: bool = False  # a text of a third party was shown to the model
    searches: int = 0
    pages: int = 0
    _known: set[str] = field(default_factory=set)  # addresses that may be read once tainted

    def know(self, urls: Iterable[str]) -> None:
        """Addresses that the person gave, or that stand in what was read."""
        self._known |= {plain(url) for url in urls}

    def know_text(self, text: str) -> None:
        """The addresses in a text of the person's."""
        self.know(m[0].rstrip(TRAILING) for m in ADDRESS.finditer(text))

    async def search(self, words: str, count: int, domains: Domains) -> Ran:
        """Search, and give the hits numbers."""
        try:
            found = await self.tools().search.search(Query(words=words, count=count), key=self.key)
        except NemotronOpsError as exc:
            return Ran(text=f"the search failed: {exc.message}", detail=Found(query=words), error="unavailable")
        if isinstance(found, Failure):
            hint = f" ({found.hint})" if found.hint else ""
            text = f"the search found nothing: {found.said}{hint}"
            return Ran(text=text, detail=Found(query=words), error=ERRORS.get(found.kind, ""))
        self.searches += 1
        hits = tuple(hit for hit in found if domains.admit(hit.url))
        if not hits:
            return Ran(text="the search found nothing on the allowed domains", detail=Found(query=words))
        first = self._next()
        for number, hit in enumerate(hits, first):
            self.sources[number] = Source(url=hit.url, title=hit.title, passage=hit.passage or hit.text)
        self.know(hit.url for hit in hits)
        self.tainted = True
        text = listed(hits, first=first, most=self.letters)
        return Ran(text=text, detail=Found(query=words, hits=hits, first=first))

    async def read(self, url: str, domains: Domains) -> Ran:
        """Read a page, and give it a number."""
        if self.tainted and plain(url) not in self._known:
            text = (
                "this address was given neither by the person nor by a search or a page that was read: it is not "
                "fetched. Ask the person to name it."
            )
            return Ran(text=text, detail=Opened(url=url), error="url_not_in_prior_context")
        if not domains.admit(url):
            text = "pages of this domain are not read in this answer"
            return Ran(text=text, detail=Opened(url=url), error="url_not_allowed")
        try:
            tools = self.tools()
            page = await read_page(url, tools.reach, tools.cache, key=self.key)
        except NemotronOpsError as exc:
            return Ran(text=exc.message, detail=Opened(url=url), error="url_not_accessible")
        if not domains.admit(page.url):
            text = "the page leads to a domain that is not read in this answer"
            return Ran(text=text, detail=Opened(url=url), error="url_not_allowed")
        self.pages += 1
        self.tainted = True
        self.know((page.url, *page.links))
        number = self._number(page)
        text = framed(f"{page.title}\n\n{page.text}", source=page.url, date=page.date, most=self.letters)
        return Ran(text=f"{text}\nCite it as [{number}].", detail=Opened(url=url, page=page))

    def _number(self, page: Page) -> int:
        """The number of a page: the one of its hit, if a search has found it."""
        known = (n for n, source in self.sources.items() if plain(source.url) == plain(page.url))
        number = next(known, None) or self._next()
        self.sources[number] = Source(url=page.url, title=page.title, passage=page.text[:1200])
        return number

    def _next(self) -> int:
        return max(self.sources, default=0) + 1


def plain(url: str) -> str:
    """An address without its fragment and last slash: as it is compared."""
    return url.strip().partition("#")[0].rstrip("/")


def _any(place: str, rules: Collection[str]) -> bool:
    """Whether `host/path` lies below one of the rules, such as `example.com` or `example.com/blog`."""
    for rule in rules:
        host, _, path = rule.strip().lower().removeprefix("*.").partition("/")
        name, _, rest = place.partition("/")
        if (name == host or name.endswith("." + host)) and f"/{rest}".startswith(f"/{path}"):
            return True
    return False
