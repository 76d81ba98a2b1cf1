"""Limits: searches per minute and key; pauses of a provider that throttles."""

from __future__ import annotations

from nemotron_ops.web.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_KEYS, Backoff, Limits


def test_each_key_has_its_own_minute() -> None:
    limits = Limits(2)
    assert [limits.wait_s("a", t) for t in (0.0, 1.0)] == [0.0, 0.0]
    assert limits.wait_s("a", 2.0) == 58.0
    assert limits.wait_s("b", 2.0) == 0.0
    assert limits.wait_s("a", 60.5) == 0.0
    assert limits.wait_s("a", 60.75) == 0.25


def test_a_flood_of_keys_is_bounded() -> None:
    limits = Limits(1)
    for number in range(MOST_KEYS + 10):
        limits.wait_s(str(number), 0.0)
    assert len(limits._asked) == MOST_KEYS


def test_pauses_double_and_end_with_an_answer() -> None:
    backoff = Backoff()
    backoff.throttled(0.0, None)
    assert backoff.wait_s(0.0) == FIRST_PAUSE_S
    backoff.throttled(10.0, None)
    assert backoff.wait_s(10.0) == 2 * FIRST_PAUSE_S
    backoff.throttled(100.0, 60.0)
    assert backoff.wait_s(100.0) == 60.0
    backoff.throttled(200.0, 1e9)
    assert backoff.wait_s(200.0) == LONGEST_PAUSE_S
    backoff.answered()
    assert backoff.wait_s(200.0) == 0.0
