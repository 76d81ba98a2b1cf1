"""Trees, request bodies, events and states of turns: pure parts of a chat."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.studio.neighbours.deltas import Events
from nemotron_ops.studio.pages.catalogue import LANGUAGES, TEXTS, catalogue
from nemotron_ops.studio.threads.export import exported
from nemotron_ops.studio.threads.tree import Attachment, Message, Tree
from nemotron_ops.studio.turns.request import Settings, as_json, body, settings_of
from nemotron_ops.studio.turns.state import RUNNING, Happened, TurnState, after


def message(id: str, parent: str = "", role: str = "user", **more: Any) -> Message:
    return Message(id=id, chat="c", parent=parent, role=role, content=more.pop("content", id), **more)


BRANCH = [message("q", content="Hi"), message("a", "q", "assistant", content="Hello", thinking="A greeting.")]


@given(st.lists(st.integers(0, 30), max_size=40))
def test_no_message_is_ever_lost_from_the_tree(parents: list[int]) -> None:
    messages = [message(str(n), str(p) if p < n else "") for n, p in enumerate(parents)]
    tree = Tree(messages)
    assert sorted(chain(*tree.children.values())) == sorted(m.id for m in messages)
    for one in messages:
        branch = tree.branch(one.id)
        assert branch[-1] == one
        assert all(b.parent == a.id for a, b in pairwise(branch))
        assert one in tree.branch(tree.leaf_below(one.id))
        assert one.id in tree.siblings(one.id)


def test_a_circle_in_damaged_data_ends() -> None:
    tree = Tree([message("a", "b"), message("b", "a")])
    assert len(tree.branch("a")) == 2
    assert tree.leaf_below("a")


def test_untouched_fields_are_absent() -> None:
    made = body(BRANCH, Settings())
    assert set(made) == {"messages", "stream", "stream_options", "reasoning_control"}
    assert made["messages"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_what_was_set_is_sent() -> None:
    settings = settings_of(
        {"model": "30b", "temperature": 0, "top_k": 5, "thinking": False, "system": "Be brief.", "odd": 1}
    )
    made = body(BRANCH, settings)
    assert (made["model"], made["temperature"], made["top_k"]) == ("30b", 0.0, 5)
    assert made["chat_template_kwargs"] == {"enable_thinking": False}
    assert "reasoning_control" not in made
    assert made["messages"][0] == {"role": "system", "content": "Be brief."}
    assert as_json(settings) == {
        "model": "30b",
        "temperature": 0.0,
        "top_k": 5,
        "thinking": False,
        "system": "Be brief.",
    }


def test_earlier_thinking_is_sent_by_choice_and_when_an_answer_goes_on() -> None:
    assert "reasoning_content" not in body(BRANCH, Settings())["messages"][1]
    assert body(BRANCH, Settings(keep_thinking=True))["messages"][1]["reasoning_content"] == "A greeting."
    continued = body(BRANCH, Settings(), continued=True)
    assert continued["messages"][1]["reasoning_content"] == "A greeting."
    assert continued["continue_final_message"] is True


def test_attachments_are_read_before_the_question() -> None:
    file = Attachment(name="a.py", mime="text/plain", sha256="0" * 64, size_bytes=1, text="x = 1")
    made = body([message("q", content="Why?", attachments=(file,))], Settings())
    assert made["messages"][0]["content"] == "[file: a.py]\nx = 1\n[end of file]\n\nWhy?"
    seen = body([message("q", content="What?", images=("data:image/png;base64,AA==",))], Settings())
    assert seen["messages"][0]["content"][1]["image_url"]["url"].startswith("data:")


@pytest.mark.parametrize(
    "value",
    [
        {"temperature": "hot"},
        {"temperature": 99},
        {"top_k": True},
        {"thinking": 1},
        {"system": 5},
        {"max_tokens": 0},
        {"seed": -1},
    ],
)
def test_wrong_settings_are_refused_with_their_name(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(value))):
        settings_of(value)


def test_events_are_the_same_however_their_bytes_are_cut() -> None:
    events: list[Any] = [
        {"id": "x", "choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "é"}}]},
        {"choices": [{"delta": {"content": "lan"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"completion_tokens": 2}},
    ]
    wire = b"".join(b"data: " + msgspec.json.encode(e) + b"\n\n" for e in events) + b": comment\n\ndata: [DONE]\n\n"
    whole = list(Events().feed(wire))
    assert [d.thinking + d.text + d.reason for d in whole] == ["hm", "élan", "stop", ""]
    assert [d.tokens for d in whole] == [1, 2, 0, 0]
    for cut in range(len(wire)):
        split = Events()
        found = [*split.feed(wire[:cut]), *split.feed(wire[cut:])]
        assert "".join(d.thinking for d in found) == "hm"
        assert "".join(d.text for d in found) == "élan"
        assert sum(d.tokens for d in found) == 3
        assert found[-2:] == whole[-2:]
        assert split.ended


@pytest.mark.parametrize(
    "data",
    [b"data: nonsense\n", b'data: {"error": {"message": "full"}}\n', b"data: [1]\n", b'data: {"choices": null}\n'],
)
def test_odd_events_raise_nothing(data: bytes) -> None:
    found = list(Events().feed(data))
    assert [d.error for d in found] in ([], [""], ["full"])


@given(st.lists(st.sampled_from(list(Happened)), max_size=20))
def test_an_end_is_never_left(happenings: list[Happened]) -> None:
    state = TurnState.QUEUED
    for happened in happenings:
        new = after(state, happened)
        assert state in RUNNING or new is state
        state = new


def test_exports_hold_the_branch() -> None:
    assert '"reasoning_content": "A greeting."' in exported("jsonl", "t", "Be brief.", BRANCH)
    assert exported("jsonl", "t", "", BRANCH).count("\n") == 1
    assert "> A greeting." in exported("md", "Title", "", BRANCH)
    assert '"title": "Title"' in exported("json", "Title", "", BRANCH)


def test_every_text_is_there_in_every_language() -> None:
    assert all(len(texts) == len(LANGUAGES) and all(texts) for texts in TEXTS.values())
    assert catalogue("zh")["chat"] == "对话"
    assert catalogue("xx") == catalogue("en")
