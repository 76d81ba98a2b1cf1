"""Asks the configured provider, within limits, from a cache where it can. httpx, disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nemotron_ops.web import ddgs_search
from nemotron_ops.web.cache import Cache
from nemotron_ops.web.hits import Failure, Hit
from nemotron_ops.web.limits import Backoff, Limits
from nemotron_ops.web.providers import PROVIDERS, Query, Request, request, results
from nemotron_ops.web.settings import WITHOUT_KEY, Web

FRESH_S = 900.0
TIME_S = 10.0
MOST_BYTES = 4 << 20  # of a provider's answer
MOST_WORDS = 400  # letters of a query
AGAIN = "do not search again before then: answer with what is known, and say that the search was refused"


@dataclass
class Search:
    """Searches of all API keys through one provider. `clock` is monotonic, in seconds."""

    web: Web
    cache: Cache | None = None
    clock: Callable[[], float] = time.monotonic
    _limits: Limits = field(init=False)
    _backoff: Backoff = field(default_factory=Backoff, init=False)

    def __post_init__(self) -> None:
        self._limits = Limits(self.web.settings.searches_per_minute)

    async def search(self, query: Query, *, key: str = "") -> list[Hit] | Failure:
        """Results for `query` on behalf of API key `key`, or why there are none."""
        if refusal := self.web.refusal:
            return Failure(kind="key", said=refusal, hint="")
        words = " ".join(query.words.split())[:MOST_WORDS]
        if not words:
            return Failure(kind="empty", said="the query is empty")
        asked = Query(words=words, count=query.count, language=query.language or self.web.settings.language)
        name = f"search {self.web.settings.provider} {asked}"
        kept = self.cache.get(key, name) if self.cache else None
        if kept and kept[1] < FRESH_S and (hits := _from_cache(kept[0])):
            return hits
        return await self._fresh(asked, key, name)

    async def _fresh(self, query: Query, key: str, name: str) -> list[Hit] | Failure:
        now = self.clock()
        if wait_s := self._backoff.wait_s(now):
            return _wait(f"{self.web.settings.provider} refuses searches", wait_s)
        if wait_s := self._limits.wait_s(key, now):
            return _wait("this key has used its searches of this minute", wait_s)
        found = await self._ask(query)
        if isinstance(found, Failure):
            if found.kind == "throttled":
                self._backoff.throttled(self.clock(), found.retry_after_s)
                return _wait(found.said, self._backoff.wait_s(self.clock()))
            return found
        self._backoff.answered()
        found = found[: query.count]
        if self.cache:
            self.cache.put(key, name, [asdict(hit) for hit in found])
        return found

    async def _ask(self, query: Query) -> list[Hit] | Failure:
        settings = self.web.settings
        if settings.provider == WITHOUT_KEY:
            return await asyncio.to_thread(ddgs_search.ask, query)
        base = settings.url or PROVIDERS[settings.provider].base
        return await self._send(request(settings.provider, base, self.web.key, query))

    async def _send(self, asked: Request) -> list[Hit] | Failure:
        import httpx

        settings = self.web.settings
        try:
            async with (
                asyncio.timeout(TIME_S),
                httpx.AsyncClient(trust_env=settings.proxies_of_environment, timeout=TIME_S) as http,
                http.stream(asked.method, asked.url, headers=dict(asked.headers), content=asked.body) as answer,
            ):
                body = await _bounded(answer)
        except TimeoutError:
            return Failure(kind="broken", said=f"{settings.provider} does not answer within {TIME_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            said = f"{settings.provider} cannot be reached: {str(exc) or type(exc).__name__}"
            return Failure(kind="broken", said=said, hint="check `url` in web.toml" if settings.url else "")
        headers = {k.lower(): v for k, v in answer.headers.items()}
        return results(settings.provider, answer.status_code, headers, body)


async def _bounded(answer: Any) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            return b""  # no provider's answer; read as broken
    return bytes(body)


def _wait(said: str, wait_s: float) -> Failure:
    said = f"{said}; it may be asked again in {wait_s:.0f} s"
    return Failure(kind="throttled", said=said, hint=AGAIN, retry_after_s=wait_s)


def _from_cache(value: Any) -> list[Hit] | None:
    try:
        return [Hit(**hit) for hit in value]
    except TypeError:
        return None
