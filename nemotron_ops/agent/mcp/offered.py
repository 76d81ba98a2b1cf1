"""The tools that our MCP server offers, and what runs each. Threads, httpx, disk.

A client of the server decides itself which calls its user must approve; what is refused here is refused to all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.agent.here import Here
from nemotron_ops.agent.tools.code import Code
from nemotron_ops.agent.tools.code_tools import PYTHON, result_text
from nemotron_ops.agent.tools.tool import object_schema
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.sandbox import enabled
from nemotron_ops.sandbox.outcome import Item
from nemotron_ops.web.frame import framed, listed
from nemotron_ops.web.hits import Failure
from nemotron_ops.web.providers import Query
from nemotron_ops.web.read import read_page

LETTERS = 40_000  # of one result: about 10,000 tokens
HITS = 8
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")  # what clients show
KEY = "mcp"  # limits and cache of the web are kept for each key; all MCP clients are one


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a call gave: a text, images, and whether it failed."""

    text: str
    images: tuple[Item, ...] = ()
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One tool: `needs` is what the operator enables for it."""

    name: str
    needs: str
    description: str
    parameters: Mapping[str, Any]
    reads_the_web: bool
    run: Callable[[Here, Code, str], Awaitable[Given]]

    @property
    def argument(self) -> str:
        """The name of its only argument, a text."""
        return str(self.parameters["required"][0])


async def _run_python(here: Here, code: Code, program: str) -> Given:
    del here
    outcome = await code.run(program)
    failed = not outcome.backend or bool(outcome.exit_code)
    images = (*outcome.images, *(item for item in outcome.files if item.mime in IMAGES))
    return Given(text=result_text(outcome, LETTERS), images=images, failed=failed)


async def _search(here: Here, code: Code, query: str) -> Given:
    del code
    found = await here.web().search.search(Query(words=query, count=HITS), key=KEY)
    if isinstance(found, Failure):
        hint = f" ({found.hint})" if found.hint else ""
        return Given(text=f"the search found nothing: {found.said}{hint}", failed=True)
    return Given(text=listed(found, most=LETTERS))


async def _read(here: Here, code: Code, url: str) -> Given:
    del code
    tools = here.web()
    page = await read_page(url, tools.reach, tools.cache, key=KEY)
    return Given(text=framed(f"{page.title}\n\n{page.text}", source=page.url, date=page.date, most=LETTERS))


ALL = (
    Offer(
        name="run_python", needs="python", reads_the_web=False, run=_run_python,
        description=PYTHON.replace("calls of this answer", "calls"),
        parameters=object_schema(code="the program"),
    ),
    Offer(
        name="web_search", needs="web", reads_the_web=True, run=_search,
        description="Search the web. Returns numbered results with addresses.",
        parameters=object_schema(query="what to search for"),
    ),
    Offer(
        name="read_page", needs="web", reads_the_web=True, run=_read,
        description="Read a public web page as text.",
        parameters=object_schema(url="the page's address"),
    ),
)  # fmt: skip


def usable(here: Here) -> tuple[Offer, ...]:
    """The tools that are enabled and set up here. Raises RecipeError if a file of the operator's is wrong."""
    ready = here.usable()
    return tuple(offer for offer in ALL if offer.needs in ready)


async def called(here: Here, code: Code, name: str, arguments: Mapping[str, Any]) -> Given:
    """The result of a call. What cannot be run is a result too, which says why."""
    offer = next((one for one in ALL if one.name == name), None)
    if offer is None:
        return Given(text=f"there is no tool {name[:100]!r}", failed=True)
    given = arguments.get(offer.argument)
    if not isinstance(given, str) or not given.strip() or set(arguments) != {offer.argument}:
        return Given(text=f"expected one text, `{offer.argument}`", failed=True)
    try:
        if why := here.refusal((offer.needs,)):
            return Given(text=why, failed=True)
        return await offer.run(here, code, given)
    except NemotronOpsError as exc:
        return Given(text=exc.message + (f" (hint: {exc.hint})" if exc.hint else ""), failed=True)


def refusal() -> tuple[str, str]:
    """Text and hint for an installation that offers nothing."""
    names = ", ".join(enabled.TOOLS[:2])
    return f"cannot serve tools: none of {names} is enabled and set up here", "nemotron-ops tools enable python"
