"""Bodies that engines were lost on: how long they are refused, for which model, and what that costs in memory."""

from __future__ import annotations

import pytest

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.queue.denylist import KEPT_S, KEY_BODIES, Denylist

BODY = b'{"grammar":"root ::= ((("}'


def refused(found: Denylist, body: bytes, now: float, *, model: str = "m", key: str = "k") -> str:
    """The code of the refusal; empty if there is none."""
    try:
        found.check(model, key, body, now)
    except Refusal as refusal:
        return refusal.code
    return ""


def test_a_body_is_refused_whatever_key_brings_it_until_it_is_forgotten() -> None:
    found = Denylist()
    found.add("m", "k", BODY, now=10.0)
    assert refused(found, BODY, 11.0) == refused(found, BODY, 11.0, key="other") == "kills_engine"
    assert refused(found, BODY + b" ", 11.0) == ""
    assert refused(found, BODY, 11.0, model="other") == ""
    assert refused(found, BODY, 10.0 + KEPT_S) == ""
    assert not found.bodies


def test_a_key_whose_bodies_go_on_costing_engines_is_refused_and_no_other() -> None:
    found = Denylist()
    for n in range(KEY_BODIES):
        assert refused(found, b"fine", 10.0 + n) == ""
        found.add("m", "k", b"%d" % n, now=10.0 + n)
    assert refused(found, b"fine", 20.0) == "too_many_engine_deaths"
    assert refused(found, b"fine", 20.0, key="other") == ""
    assert refused(found, b"fine", 10.0 + KEPT_S) == "", "the first of them is forgotten"


def test_without_keys_bodies_alone_are_refused() -> None:
    found = Denylist()
    for n in range(KEY_BODIES + 1):
        found.add("m", "", b"%d" % n, now=10.0)
    assert refused(found, b"fine", 11.0, key="") == ""


def test_a_key_that_is_refused_is_told_when_to_come_back() -> None:
    found = Denylist()
    for n in range(KEY_BODIES):
        found.add("m", "k", b"%d" % n, now=10.0 + n)
    with pytest.raises(Refusal) as caught:
        found.check("m", "k", b"fine", 20.0)
    assert caught.value.retry_after_s == KEPT_S - 10.0


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    found = Denylist(capacity=10)
    for n in range(1000):
        found.add("m", f"k{n}", b"%d" % n, now=10.0)
    assert len(found.bodies) == 10
    assert refused(found, b"0", 11.0) == ""
    assert refused(found, b"999", 11.0) == "kills_engine"
