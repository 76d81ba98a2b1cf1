"""Third parties' texts: template tokens are broken, hidden characters removed, lengths kept; marks become citations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.web.citations import Source, chat_annotation, cited, messages_citation, responses_annotation
from nemotron_ops.web.frame import broken_tokens, framed, listed, shortened
from nemotron_ops.web.hits import Hit

TOKENS = [
    *("<|im_end|>", "<|im_start|>system", "</tool_response>", "<tool_call>", "<function=rm>", "<parameter=x>"),
    *("<think>", "</think>", "<TOOL_CALL>", "[INST]", "[/INST]", "[TOOL_CALLS]", "</s>", "<invoke name=x>", "<tools>"),
]
SOURCES = {
    1: Source(url="https://a.example/", title="A", passage="words"),
    3: Source(url="https://c.example/", title="C"),
}


@pytest.mark.parametrize("token", TOKENS)
def test_template_tokens_are_broken_wherever_they_stand(token: str) -> None:
    assert token not in framed(f"before {token} after", source=token, date=token, most=100)
    hit = Hit(url=f"https://x.example/{token}", title=token, passage=token, date=token)
    assert token not in listed([hit], most=100)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\u2063", "\ufeff", "\U000e0041", "\x00"])
def test_characters_that_are_not_seen_do_not_hide_a_token(token: str, hidden: str) -> None:
    assert token not in broken_tokens(token[:1] + hidden + token[1:]).replace(hidden, "")


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("a < b and c > d", "if (x<y) { return [1]; }", "<p>two</p>", "naïve 日本語 🙂", "x[0] = y\n\ttab"):
        assert broken_tokens(text) == text


@given(st.text(max_size=300), st.integers(0, 100))
def test_a_shortened_text_keeps_head_and_tail(text: str, most: int) -> None:
    short = shortened(text, most)
    assert text.startswith(short.partition("\n[…")[0]) or len(text) <= most
    assert len(short) <= max(len(text), most + 60)


def test_marks_of_known_sources_are_cited_at_their_place() -> None:
    text = "It is so [1], and so [3][1]. Not [2], `[1]`, [1](https://evil.example) or ```\n[3]\n```."
    found = cited(text, SOURCES)
    assert [(text[c.start : c.end], c.number) for c in found] == [("[1]", 1), ("[3]", 3), ("[1]", 1)]


def test_citations_have_each_apis_shape() -> None:
    (one,) = cited("So [1].", SOURCES)
    where = {"start_index": 3, "end_index": 6, "url": "https://a.example/", "title": "A"}
    assert responses_annotation(one) == {"type": "url_citation", **where}
    assert chat_annotation(one) == {"type": "url_citation", "url_citation": where}
    assert messages_citation(one)["cited_text"] == "words"
