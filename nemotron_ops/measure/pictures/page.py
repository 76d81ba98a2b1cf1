"""One self-contained page: pictures and tables, no script, nothing from elsewhere. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff }}
img {{ max-width: 100%; height: auto; display: block; margin: 1rem 0 2rem }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem; display: block; overflow-x: auto }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body>
<h1>{title}</h1>
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table under a heading."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def page(title: str, tables: Sequence[Table], pictures: Sequence[tuple[str, bytes]]) -> str:
    """The page; `pictures` are titles with SVG bytes. An SVG inside an `img` runs no script."""
    parts = [HEAD.format(title=escape(title))]
    for table in tables:
        parts.append(f"<h2>{escape(table.title)}</h2>")
        parts += [f"<p>{escape(table.note)}</p>"] if table.note else []
        parts.append(f"<table>{_row(table.header, 'th')}{''.join(_row(r, 'td') for r in table.rows)}</table>")
    for name, svg in pictures:
        data = b64encode(svg).decode()
        parts.append(f'<img alt="{escape(name, quote=True)}" src="data:image/svg+xml;base64,{data}">')
    return "\n".join([*parts, "</body></html>\n"])


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"
