"""Markdown as safe HTML: split invariance, mathematics and prices, hostile text against each wall. Costs about 3 s."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.studio.render.clean import clean
from nemotron_ops.studio.render.growing import Growing, whole
from nemotron_ops.studio.render.markdown import html_of, parser
from nemotron_ops.studio.render.maths import mathml
from nemotron_ops.studio.render.segments import segments
from tests.tables.hostile import HOSTILE

PIECES = [
    "# Title\n", "Some **bold** text.\n", "\n", "- one\n", "- two\n  more\n", "1. first\n", "   inner\n", "```python\n",
    "x = 1\n", "```\n", "~~~\n", "> quote\n", "| a | b |\n|---|--:|\n| 1 | 2 |\n", "$$\n", "\\frac{a}{b}\n", "\\[\n",
    "\\]\n", "costs $5 or $10, and $x^2$\n", "    indented\n", "---\n", "word", " `code` ", "<b>", "  - nested\n",
    "***\n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(TEXTS)
def test_blocks_joined_are_the_text(text: str) -> None:
    assert "".join(segments(text)) == text


@given(TEXTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_growing_text_has_the_blocks_of_the_whole_one(text: str, random: object) -> None:
    growing, at = Growing(clock=lambda: 0.0), 0
    seen: dict[int, str] = {}
    while at < len(text):
        step = random.randint(1, 12)  # type: ignore[attr-defined]
        growing.add(text[at : at + step])
        seen.update(growing.flush())
        at += step
    seen.update(growing.flush(ended=True))
    blocks = whole(text)
    assert growing.html[: len(blocks)] == blocks
    assert [seen.get(n, "") for n in range(len(blocks))] == blocks


def test_a_slow_block_is_plain_until_it_ends() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    growing = Growing(clock=clock)
    growing.add("**one**")
    growing.flush()
    assert growing.pause_s == 20.0
    growing.add(" more")
    assert growing.flush() == [(0, '<pre class="plain">**one** more</pre>')]
    assert growing.flush(ended=True) == [(0, "<p><strong>one</strong> more</p>\n")]


@pytest.mark.parametrize("text", ["It costs $5 or $10.", "$ 5 $", "a$b", "US$20 and $30", "$5", "\\$x$"])
def test_prices_are_no_formulas(text: str) -> None:
    assert "<math" not in html_of(text)


@pytest.mark.parametrize("text", ["$x^2$", "\\(x\\)", "\\[x\\]", "$$x$$", "so $a+b$, then", "$$\nx\n$$"])
def test_formulas_are_mathml(text: str) -> None:
    assert "<math" in html_of(text)


@pytest.mark.parametrize("tex", ["\\frac{a", "{" * 100, "\\begin{nothing}", "x" * 5000, "\\left("])
def test_tex_that_cannot_be_read_is_shown_as_it_was_typed(tex: str) -> None:
    shown = html_of(f"${tex}$")
    assert "<math" in shown or re.sub(r"<[^>]+>", "", shown).strip()[:20] == f"${tex}$"[:20]


def scripts_in(html: str) -> list[str]:
    """What a browser could run or fetch."""
    tags = re.findall(r"<[^>]*>", html)
    names = "script|iframe|object|embed|img|svg|style|link|meta|base|form|input|video|audio"
    bad = re.compile(rf"<\s*({names})|\son\w+\s*=", re.I)
    links = [t for t in tags if re.search(r'(href|src)\s*=\s*"?\s*(javascript|data|vbscript|file|blob):', t, re.I)]
    return [t for t in tags if bad.search(t) or " style=" in t] + links


def test_the_hostile_corpus_is_large() -> None:
    assert len(HOSTILE) >= 200


@pytest.mark.parametrize("payload", HOSTILE)
def test_no_payload_becomes_markup(payload: str) -> None:
    for text in (
        payload,
        f"# {payload}",
        f"- {payload}",
        f"> {payload}",
        f"|{payload}|\n|-|\n|x|",
        f"```html\n{payload}\n```",
        f"${payload}$",
    ):
        assert scripts_in(html_of(text)) == []


@pytest.mark.parametrize("payload", HOSTILE)
def test_the_first_wall_holds_alone(payload: str) -> None:
    made = parser().render(payload)
    assert [t for t in scripts_in(made) if "<math" not in made] == []


@pytest.mark.parametrize("payload", HOSTILE)
def test_the_second_wall_holds_alone(payload: str) -> None:
    assert scripts_in(clean(payload)) == []
    assert scripts_in(clean(mathml(f"\\text{{{payload}}}", display=False))) == []


@pytest.mark.parametrize("payload", HOSTILE[::10])
def test_payloads_cut_at_every_place_become_no_markup(payload: str) -> None:
    for cut in range(len(payload)):
        growing = Growing()
        growing.add(payload[:cut])
        first = growing.flush()
        growing.add(payload[cut:])
        for _, html in [*first, *growing.flush(ended=True)]:
            assert scripts_in(html) == []


def test_links_tell_nothing_and_pictures_become_links() -> None:
    shown = html_of("![a](https://x.example/p.png) [b](https://y.example)")
    assert "<img" not in shown
    assert shown.count('rel="noopener noreferrer nofollow"') == 2


def test_code_is_coloured_and_escaped() -> None:
    shown = html_of('```python\nprint("<b>")\n```')
    assert 'class="nb"' in shown or 'class="nf"' in shown
    assert "&lt;b&gt;" in shown
