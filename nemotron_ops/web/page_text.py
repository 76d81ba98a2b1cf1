"""Text, title and links of a page's bytes; what a browser would hide is left out. trafilatura, lxml.

Both packages come with the extra `tools`; they are imported on first use (0.3 s of processor time).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from nemotron_ops.errors import HostError

if TYPE_CHECKING:
    from lxml.html import HtmlElement

MOST_LINKS = 500
HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?![.\d]*[1-9])"
    r"|font-size\s*:\s*0(?![.\d]*[1-9])|(?:left|top|text-indent)\s*:\s*-\d{3,}",
    re.IGNORECASE,
)
NEVER_SHOWN = ("script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "dialog", "input")
CHARSET = re.compile(r"charset=[\"']?([\w-]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PageText:
    """A page as text; `links` are absolute addresses, in order, each once."""

    title: str
    text: str
    date: str = ""
    links: tuple[str, ...] = ()


def page_text(body: bytes, *, url: str, content_type: str) -> PageText:
    """The text of a page. `content_type` may carry its charset. Raises HostError without the extra `tools`."""
    if "html" not in content_type:
        return PageText(title=urlsplit(url).path.rpartition("/")[2], text=_decoded(body, content_type))
    try:
        from lxml.etree import ParserError
        from lxml.html import HTMLParser, document_fromstring
        from trafilatura import bare_extraction
    except ImportError as exc:
        raise HostError(
            f"cannot read pages: the package {exc.name} is missing", hint="pip install 'nemotron-ops[tools]'"
        ) from exc
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        tree = document_fromstring(_decoded(body, content_type).encode("utf-8", "replace"), parser=parser)
    except (ParserError, ValueError):
        return PageText(title="", text="")
    _drop_hidden(tree)
    links = _links(tree, url)
    found = bare_extraction(tree, url=url, include_tables=True, include_comments=False, with_metadata=True)
    if found is None:
        return PageText(title=_title(tree), text=_plain(tree), links=links)
    facts = found if isinstance(found, dict) else found.as_dict()
    text, title, date = (str(facts.get(name) or "") for name in ("text", "title", "date"))
    return PageText(title=title or _title(tree), text=text or _plain(tree), date=date, links=links)


def _decoded(body: bytes, content_type: str) -> str:
    head = body[:2048].decode("latin-1")
    named = CHARSET.search(content_type) or CHARSET.search(head)
    try:
        return body.decode(named[1] if named else "utf-8", "strict")
    except (LookupError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")


def _drop_hidden(tree: HtmlElement) -> None:
    for node in list(tree.iter()):
        if not isinstance(node.tag, str) or node.getparent() is None:
            continue
        hidden = (
            node.tag in NEVER_SHOWN
            or node.get("hidden") is not None
            or node.get("aria-hidden", "").lower() == "true"
            or HIDING.search(node.get("style", ""))
        )
        if hidden:
            node.drop_tree()


def _links(tree: HtmlElement, url: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node in tree.iter("a"):
        try:
            link = urljoin(url, node.get("href", "")).partition("#")[0]
        except ValueError:
            continue
        if link.startswith(("http://", "https://")):
            found[link] = None
        if len(found) >= MOST_LINKS:
            break
    return tuple(found)


def _title(tree: HtmlElement) -> str:
    return " ".join((tree.findtext(".//title") or "").split())


def _plain(tree: HtmlElement) -> str:
    """All text that is shown, line by line: for pages in which no article is found."""
    body = tree.find("body")
    lines = (" ".join(t.split()) for t in (body if body is not None else tree).itertext())
    return "\n".join(line for line in lines if line)
