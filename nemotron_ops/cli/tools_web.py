"""`tools search` and `tools read`: the web as models get it, to try what web.toml says. Prints."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.errors import HostError

SHOWN = 20_000  # letters of a page


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--count", "-n", default=8, type=click.IntRange(1, 20), help="Results.")
@json_option
def search(words: tuple[str, ...], count: int, as_json: bool) -> None:
    """Search the web with the provider that web.toml names."""
    with App() as app:
        from nemotron_ops.web.frame import listed
        from nemotron_ops.web.hits import Failure
        from nemotron_ops.web.providers import Query
        from nemotron_ops.web.search import Search
        from nemotron_ops.web.settings import load, settings_path

        path = settings_path(app.layout.config)
        found = asyncio.run(Search(load(app.layout.config, app.env)).search(Query(words=" ".join(words), count=count)))
        if isinstance(found, Failure):
            hint = found.hint if found.kind != "key" else found.hint or f"the provider and its key are set in {path}"
            raise HostError(f"cannot search: {found.said}", hint=hint or f"the provider is set in {path}")
        app.ui.json([asdict(hit) for hit in found]) if as_json else app.ui.data(listed(found, most=SHOWN))


@click.command()
@click.argument("url")
@json_option
def read(url: str, as_json: bool) -> None:
    """Read a page as text: from public addresses, and from the inner hosts that web.toml allows."""
    with App() as app:
        from nemotron_ops.web.frame import framed
        from nemotron_ops.web.reach import Reach
        from nemotron_ops.web.read import read_page
        from nemotron_ops.web.settings import load

        reach = Reach(allow=frozenset(load(app.layout.config, app.env).settings.allow))
        page = asyncio.run(read_page(url, reach))
        if as_json:
            app.ui.json(asdict(page))
            return
        app.ui.data(framed(f"{page.title}\n\n{page.text}", source=page.url, date=page.date, most=SHOWN))
