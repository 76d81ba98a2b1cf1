"""Removes all markup but a short list: the second of three walls against script in a page. nh3 (Rust's ammonia).

The first wall is the parser, which takes HTML as text; the third is the page's Content-Security-Policy with Trusted
Types. Each holds by itself.
"""

from __future__ import annotations

import nh3

MATHML = frozenset(
    {
        *(
            "math",
            "mrow",
            "mi",
            "mo",
            "mn",
            "ms",
            "mtext",
            "mspace",
            "msub",
            "msup",
            "msubsup",
            "mfrac",
            "msqrt",
            "mroot",
        ),
        *("munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose"),
    }
)
TAGS = MATHML | {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "del", "code", "pre", "span", "div"),
    *("ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "a", "sup", "sub"),
}
MATH_ATTRIBUTES = {
    *("display", "mathvariant", "stretchy", "fence", "form", "separator", "lspace", "rspace", "accent", "accentunder"),
    *("linethickness", "columnalign", "rowspacing", "columnspacing", "width", "height", "depth", "minsize", "maxsize"),
}
ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "span": {"class"},
    "div": {"class"},
    "code": {"class"},
    "pre": {"class"},
    "th": {"class"},
    "td": {"class"},
    "p": {"class"},
    "mtable": MATH_ATTRIBUTES,
    **dict.fromkeys(MATHML, MATH_ATTRIBUTES),
}
SCHEMES = {"http", "https", "mailto"}


CLEANER = nh3.Cleaner(
    tags=TAGS,
    attributes=ATTRIBUTES,
    url_schemes=SCHEMES,
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
    strip_comments=True,
    url_relative="deny",
)


def clean(html: str) -> str:
    """`html` with the tags and attributes of the list alone; links open elsewhere and tell nothing of this page."""
    return CLEANER.clean(html)
