"""Code with classes for its colours. Pygments."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.formatters import HtmlFormatter
    from pygments.lexer import Lexer

MOST_COLOURED = 100_000  # letters; longer code stays plain


@lru_cache(maxsize=64)
def lexer_for(language: str) -> Lexer | None:
    """The lexer of a language's name or alias, None if there is none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=1)
def formatter() -> HtmlFormatter[str]:
    """Spans with short classes; made once, because it reads a whole style."""
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(nowrap=True)


def coloured(code: str, language: str) -> str:
    """`code` as HTML: spans with Pygments' short classes, or plain text."""
    from pygments import highlight

    lexer = lexer_for(language) if language and len(code) <= MOST_COLOURED else None
    if lexer is None:
        return escape(code)
    return str(highlight(code, lexer, formatter()))
