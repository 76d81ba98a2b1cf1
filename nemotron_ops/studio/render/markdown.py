"""One block of Markdown as safe HTML. markdown-it-py.

HTML in the text is text. Pictures become links, so that no address is fetched without a click. Dollars follow Pandoc's
rule: `$5 or $10` is text, `$x^2$` is mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from nemotron_ops.studio.render.clean import clean
from nemotron_ops.studio.render.code import coloured
from nemotron_ops.studio.render.maths import mathml

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

COMMON = ("python", "bash", "json", "javascript", "typescript", "c", "cpp", "rust", "go", "html", "css", "sql", "yaml")
LANGUAGE = re.compile(r"[\w+#.-]{1,30}")
LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
BRACKETED = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
ALIGNED = re.compile(r' style="text-align:(left|right|center)"')


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """The parser, made once."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    made.validateLink = lambda url: bool(LINK.match(url))  # type: ignore[method-assign]
    made.enable(["table", "strikethrough"])
    made.use(
        dollarmath_plugin,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        double_inline=True,
        renderer=lambda tex, options: mathml(tex.strip(), display=bool(options["display_mode"])),
    )
    made.inline.ruler.before("escape", "bracket_math", _bracket_math)
    made.add_render_rule("bracket_math", _bracketed)
    made.add_render_rule("fence", _fence)
    made.add_render_rule("code_block", _fence)
    made.add_render_rule("image", _image)
    return made


def html_of_open_fence(block: str) -> str:
    """The HTML of a fence that has not ended yet: without colours, which cost most and change with each letter."""
    opening, _, code = block.partition("\n")
    words = opening.strip().lstrip("`~").split()
    return _code_html(words[0] if words and LANGUAGE.fullmatch(words[0]) else "", escape(code))


def html_of(block: str) -> str:
    """The safe HTML of one block; a block that cannot be parsed is shown as it was typed."""
    try:
        made = parser().render(block)
    except RecursionError:
        made = f"<pre>{escape(block)}</pre>"
    return clean(ALIGNED.sub(r' class="\1"', made))


def warm() -> None:
    """Load what answers use most: parsers, the converter of TeX, lexers. The first use of each costs 30 ms and more."""
    html_of("| a |\n| - |\n| *b* |\n")
    html_of("$x^2$")
    for language in COMMON:
        coloured("x", language)


def _bracket_math(state: StateInline, silent: bool) -> bool:
    """`\\(…\\)` and `\\[…\\]`."""
    if state.src[state.pos] != "\\":
        return False
    found = BRACKETED.match(state.src, state.pos)
    if not found or found.end() > state.posMax:
        return False
    if not silent:
        token = state.push("bracket_math", "math", 0)
        token.content = found[1] or found[2]
        token.meta = {"display": found[2] is not None}
    state.pos = found.end()
    return True


def _bracketed(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    del self, options, env
    return mathml(tokens[at].content.strip(), display=bool(tokens[at].meta["display"]))


def _fence(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    del self, options, env
    words = tokens[at].info.split()
    language = words[0] if words and LANGUAGE.fullmatch(words[0]) else ""
    return _code_html(language, coloured(tokens[at].content, language))


def _code_html(language: str, code: str) -> str:
    return (
        f'<div class="code"><div class="lang">{escape(language)}</div><pre><code class="hl">{code}</code></pre></div>\n'
    )


def _image(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    del self, options, env
    href = tokens[at].attrGet("src") or ""
    return f'<a href="{escape(str(href), quote=True)}">{escape(tokens[at].content or str(href))}</a>'
