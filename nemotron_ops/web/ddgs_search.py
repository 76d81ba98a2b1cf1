"""Asks search engines without a key, through the `ddgs` package: best effort, and subject to the engines' terms.

The package imitates a browser. Engines that throttle it answer with no results, so none found may mean either.
"""

from __future__ import annotations

from importlib import import_module

from nemotron_ops.web.hits import Failure, Hit
from nemotron_ops.web.providers import MOST_PASSAGE, Query

TIME_S = 10
EMPTY = "ddgs finds nothing: there may be nothing, or the engines refuse automatic searches for now"


def ask(query: Query) -> list[Hit] | Failure:
    """Search with `ddgs`; blocks for up to about ten seconds."""
    try:
        package, exceptions = import_module("ddgs"), import_module("ddgs.exceptions")
    except ImportError:
        hint = "pip install ddgs, or configure another provider in web.toml"
        return Failure(kind="broken", said="the package ddgs is missing", hint=hint)
    try:
        found = package.DDGS(timeout=TIME_S).text(query.words, max_results=query.count)
    except exceptions.RatelimitException:
        return Failure(kind="throttled", said="ddgs: the engines refuse automatic searches for now")
    except exceptions.DDGSException as exc:
        kind = "empty" if "no results" in str(exc).lower() else "broken"
        return Failure(kind="throttled", said=EMPTY) if kind == "empty" else Failure(kind="broken", said=f"ddgs: {exc}")
    hits = [
        Hit(url=str(h["href"]), title=str(h.get("title", "")), passage=str(h.get("body", ""))[:MOST_PASSAGE])
        for h in found
        if str(h.get("href", "")).startswith(("http://", "https://"))
    ]
    return hits or Failure(kind="throttled", said=EMPTY)
