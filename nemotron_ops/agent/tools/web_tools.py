"""Tools that search and read the web: `web_search` of OpenAI, `web_search` and `web_fetch` of Anthropic. Pure.

Fields that would change what is found are honoured or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool, ToolKind, object_schema
from nemotron_ops.agent.tools.web import Domains, Found, Opened

SEARCH = "web_search"
READ = "read_page"
FETCH = "web_fetch"
COUNTS = {"low": 4, "medium": 8, "high": 12}  # results, by `search_context_size`
ABOUT_SEARCH = "Search the web. Returns numbered results; cite what you use by its number, like [1]."
ABOUT_READ = "Read a web page as text: a result of a search, a link of a page, or an address that the user gave."
HARMLESS = frozenset({"type", "name", "cache_control", "allowed_callers", "strict", "defer_loading", "citations"})


async def search_and_pages(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """OpenAI's `web_search`: it searches, and opens pages. Raises InvalidError for fields that are not honoured."""
    known = {"type", "filters", "search_context_size", "user_location", "external_web_access", "search_content_types"}
    if unknown := set(given) - known:
        raise InvalidError(f"{place}.{min(unknown)}: is not honoured here")
    if given.get("external_web_access") is False:
        raise InvalidError(f"{place}.external_web_access: there is no index to search without the web")
    filters = given.get("filters") or {}
    if not isinstance(filters, dict) or set(filters) - {"allowed_domains", "blocked_domains"}:
        raise InvalidError(f"{place}.filters: expected allowed_domains or blocked_domains")
    _no_place(given, place)
    size = given.get("search_context_size") or "medium"
    if size not in COUNTS:
        raise InvalidError(f"{place}.search_context_size: expected low, medium or high")
    domains = _domains(filters, f"{place}.filters")
    return [_search(context, domains, COUNTS[size]), _reader(READ, context, domains)]


async def search(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """Anthropic's `web_search`. Raises InvalidError for fields that are not honoured."""
    if unknown := set(given) - HARMLESS - {"max_uses", "allowed_domains", "blocked_domains", "user_location"}:
        raise InvalidError(f"{place}.{min(unknown)}: is not honoured here")
    _no_place(given, place)
    tool = _search(context, _domains(given, place), COUNTS["medium"])
    return [replace(tool, most=_most(given, place))]


async def fetch(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """Anthropic's `web_fetch`. Raises InvalidError for fields that are not honoured."""
    known = {"max_uses", "allowed_domains", "blocked_domains", "max_content_tokens"}
    if unknown := set(given) - HARMLESS - known:
        raise InvalidError(f"{place}.{min(unknown)}: is not honoured here")
    return [replace(_reader(FETCH, context, _domains(given, place)), most=_most(given, place))]


def _search(context: Context, domains: Domains, count: int) -> Tool:
    run = partial(_run_search, context, domains, count)
    parameters = object_schema(query="what to search for")
    return Tool(name=SEARCH, kind=ToolKind.SEARCH, description=ABOUT_SEARCH, parameters=parameters, run=run)


def _reader(name: str, context: Context, domains: Domains) -> Tool:
    run = partial(_run_read, context, domains)
    parameters = object_schema(url="the page's address")
    return Tool(name=name, kind=ToolKind.PAGE, description=ABOUT_READ, parameters=parameters, run=run)


async def _run_search(context: Context, domains: Domains, count: int, call: Call) -> Ran:
    query = call.text("query")
    if not query or not query.strip():
        why = "the call has no text `query`; call it again with one"
        return Ran(text=why, detail=Found(query=""), error="invalid_tool_input")
    return await context.web.search(query, count, domains)


async def _run_read(context: Context, domains: Domains, call: Call) -> Ran:
    url = call.text("url")
    if not url or not url.strip():
        why = "the call has no text `url`; call it again with one"
        return Ran(text=why, detail=Opened(url=""), error="invalid_tool_input")
    return await context.web.read(url, domains)


def _no_place(given: Mapping[str, Any], place: str) -> None:
    where = given.get("user_location")
    if where is not None and (not isinstance(where, dict) or any(v for k, v in where.items() if k != "type")):
        raise InvalidError(f"{place}.user_location: is not honoured here; put the place into the question")


def _domains(given: Mapping[str, Any], place: str) -> Domains:
    found: dict[str, tuple[str, ...]] = {}
    for name in ("allowed", "blocked"):
        value = given.get(f"{name}_domains") or []
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise InvalidError(f"{place}.{name}_domains: expected a list of domains")
        found[name] = tuple(value)
    return Domains(**found)


def _most(given: Mapping[str, Any], place: str) -> int:
    most = given.get("max_uses")
    if most is None:
        return 0
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InvalidError(f"{place}.max_uses: expected a number from 1")
    return most
