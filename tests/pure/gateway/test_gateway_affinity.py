"""Affinity: a conversation goes back to the instance that holds it, and nothing else does."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.queue.affinity import Affinity, prefixes


def of(*messages: str, session: str = "", tools: str = "[]") -> tuple[int, ...]:
    turns = [{"role": "assistant" if n % 2 else "user", "content": m} for n, m in enumerate(messages)]
    fields = {"messages": msgspec.Raw(msgspec.json.encode(turns)), "tools": msgspec.Raw(tools.encode())}
    return prefixes(Api.CHAT, "m", fields, session)


def test_the_next_turn_finds_the_instance_of_the_last() -> None:
    affinity = Affinity()
    affinity.remember(of("a", "b", "c"), "x")
    assert affinity.find(of("a", "b", "c", "d", "e")) == "x"
    assert affinity.find(of("a", "b", "c")) == "x"


def test_a_shared_beginning_that_diverges_is_no_reason_to_go_there() -> None:
    affinity = Affinity()
    affinity.remember(of("system", "b", "c"), "x")
    assert affinity.find(of("system", "other", "c")) == ""
    assert affinity.find(of("system")) == ""


def test_the_longest_known_beginning_wins() -> None:
    affinity = Affinity()
    affinity.remember(of("a"), "x")
    affinity.remember(of("a", "b", "c"), "y")
    assert affinity.find(of("a", "b", "c", "d", "e")) == "y"


def test_other_tools_are_another_prompt() -> None:
    affinity = Affinity()
    affinity.remember(of("a"), "x")
    assert affinity.find(of("a", tools='[{"type":"function"}]')) == ""


def test_a_session_is_found_where_no_text_is() -> None:
    affinity = Affinity()
    affinity.remember(of("a", session="s1"), "x")
    assert affinity.find(of("entirely different", session="s1")) == "x"
    assert affinity.find(of("entirely different", session="s2")) == ""


def test_a_long_text_is_found_by_its_blocks() -> None:
    def text(prompt: str) -> tuple[int, ...]:
        return prefixes(Api.COMPLETION, "m", {"prompt": msgspec.Raw(msgspec.json.encode(prompt))}, "")

    affinity = Affinity()
    affinity.remember(text("a" * 5000), "x")
    assert affinity.find(text("a" * 5000 + "b" * 500)) == "x"
    assert affinity.find(text("b" * 5000)) == ""


def test_an_instance_that_restarted_is_forgotten() -> None:
    affinity = Affinity()
    affinity.remember(of("a"), "x")
    affinity.remember(of("b"), "y")
    affinity.forget("x")
    assert affinity.find(of("a")) == ""
    assert affinity.find(of("b")) == "y"


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    affinity = Affinity(capacity=100)
    for n in range(1000):
        affinity.remember(of(f"prompt {n}"), "x")
    assert len(affinity) == 100
    assert affinity.find(of("prompt 0")) == ""
    assert affinity.find(of("prompt 999")) == "x"


def test_a_conversation_of_any_length_costs_a_bounded_number_of_lookups() -> None:
    assert len(of(*(str(n) for n in range(1000)), session="s")) <= 65


def test_a_body_that_is_no_list_has_no_beginnings_that_break() -> None:
    assert isinstance(prefixes(Api.CHAT, "m", {"messages": msgspec.Raw(b'[{"a":')}, ""), tuple)
    assert isinstance(prefixes(Api.CHAT, "m", {}, ""), tuple)
