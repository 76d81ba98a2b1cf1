"""What is kept of streams so that they can be continued: all of it, in little memory, given back at the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.transcript import transcript_of
from nemotron_ops.gateway.streams.kept import ALL_KEPT_BYTES, KEPT_BYTES, PACK_BYTES, TIGHT_BYTES, Memory
from nemotron_ops.gateway.streams.relay import Relay
from tests.fakes.scripted_engine import _chat, pass_on


class Nowhere:
    def send(self, data: bytes, *, last: bool = False) -> None:
        """A client that reads everything."""


def relay_with(memory: Memory) -> Relay:
    return Relay(Api.CHAT, "engine", Nowhere(), begin=lambda: None, clock=lambda: 1.0, memory=memory)


def word(n: int) -> bytes:
    return _chat({"content": f" word-{n}"})


@pytest.mark.parametrize("left", [ALL_KEPT_BYTES, TIGHT_BYTES - 1], ids=["plenty", "tight"])
def test_a_long_answer_is_kept_to_its_last_word(left: int) -> None:
    memory = Memory(left)
    relay = relay_with(memory)
    count = 5000
    for n in range(count):
        pass_on(relay, word(n))
    assert relay.kept.whole
    assert transcript_of(relay.kept).content == "".join(f" word-{n}" for n in range(count))
    relay.settle()
    assert memory.left == left - relay.kept.size
    relay.forget()
    assert memory.left == left
    assert list(relay.kept) == []


def test_where_memory_is_tight_it_is_packed_and_else_not() -> None:
    plenty, tight = relay_with(Memory()), relay_with(Memory(TIGHT_BYTES - 1))
    for n in range(5000):
        pass_on(plenty, word(n))
        pass_on(tight, word(n))
    plenty.settle()
    assert plenty.kept.size == sum(len(word(n)) for n in range(5000))
    assert tight.kept.size < PACK_BYTES + plenty.kept.size / 10


def test_what_was_loose_before_it_got_tight_is_packed_bit_by_bit() -> None:
    memory = Memory()
    relay = relay_with(memory)
    for n in range(5000):
        pass_on(relay, word(n))
    whole = relay.kept.size
    memory.left = TIGHT_BYTES // 2
    relay.feed(word(5000))
    assert whole - 2 * PACK_BYTES < relay.kept.size < whole
    for n in range(5001, 5200):
        pass_on(relay, word(n))
    assert relay.kept.size < whole / 5
    assert transcript_of(relay.kept).content.endswith(" word-5199")


def test_one_stream_cannot_take_all_memory() -> None:
    memory = Memory()
    relay = relay_with(memory)
    for n in range(KEPT_BYTES // PACK_BYTES + 1):
        pass_on(relay, _chat({"content": f"{n}" + "x" * PACK_BYTES}))
    relay.settle()
    assert not relay.kept.whole
    assert memory.left == ALL_KEPT_BYTES


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3 * PACK_BYTES)), max_size=60), st.booleans())
def test_memory_is_counted_to_the_byte_whatever_streams_do(steps: list[tuple[int, int]], tight: bool) -> None:
    start = TIGHT_BYTES - 1 if tight else ALL_KEPT_BYTES
    memory = Memory(start)
    relays = [relay_with(memory) for _ in range(4)]
    for who, size in steps:
        pass_on(relays[who], _chat({"content": "x" * size}))
        assert memory.left == start - sum(r.kept.size for r in relays)
        assert all(r.kept.size >= 0 for r in relays)
    for relay in relays:
        relay.forget()
    assert memory.left == start
