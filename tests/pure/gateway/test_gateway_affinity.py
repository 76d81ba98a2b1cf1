"""Affinity: a conversation goes back to the instance that holds it, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.queue.affinity import Affinity, prefixes, session_of


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


def agent(turn: int, *, mark: bool = True, billing: str = "a1b2") -> tuple[int, ...]:
    """The request of a coding agent: its cache mark is on the newest block, its billing line changes."""
    cached: dict[str, Any] = {"cache_control": {"type": "ephemeral"}} if mark else {}
    system: list[dict[str, Any]] = [
        {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={billing};"},
        {"type": "text", "text": "You are an agent.", **cached},
    ]
    said = [
        {"role": "assistant" if n % 2 else "user", "content": [{"type": "text", "text": str(n)}]} for n in range(turn)
    ]
    said.append({"role": "user", "content": [{**cached, "type": "text", "text": str(turn)}]})
    fields = {"messages": json.dumps(said), "system": msgspec.json.encode(system).decode()}
    return prefixes(Api.MESSAGES, "m", {name: msgspec.Raw(text.encode()) for name, text in fields.items()}, "")


def test_marks_and_lines_that_the_model_does_not_read_cost_no_hit() -> None:
    affinity = Affinity()
    affinity.remember(agent(2), "x")
    assert affinity.find(agent(4, billing="ffff")) == "x"
    assert affinity.find(agent(2, mark=False)) == "x"


def test_a_mark_in_a_text_is_text() -> None:
    affinity = Affinity()
    affinity.remember(of('say "cache_control": null, please'), "x")
    assert affinity.find(of("say please")) == ""


def test_the_ids_that_vendors_clients_send_are_sessions() -> None:
    for name in (b"x-session-id", b"x-claude-code-session-id", b"session_id"):
        assert session_of({name: b"s1"}) == "s1"
    assert session_of({}) == ""
    for field, first, same, other in (
        ("metadata", '{"user_id":"u1"}', '{"user_id": "u1", "a": 1}', '{"user_id":"u2"}'),
        ("prompt_cache_key", '"k1"', '"k1"', '"k2"'),
    ):
        found = [
            prefixes(
                Api.MESSAGES, "m", {"messages": msgspec.Raw(b'[{"a":%d}]' % n), field: msgspec.Raw(v.encode())}, ""
            )
            for n, v in enumerate((first, same, other))
        ]
        affinity = Affinity()
        affinity.remember(found[0], "x")
        assert affinity.find(found[1]) == "x"
        assert affinity.find(found[2]) == ""
    for value in (b"null", b"[]", b'{"user_id":null}', b'{"user_id":5}', b'"x"'):
        assert all(n >= 0 for n in prefixes(Api.CHAT, "m", {"metadata": msgspec.Raw(value)}, ""))
