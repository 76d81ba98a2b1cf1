"""Instances that have just failed a request: how long they are paused, and what ends the pause."""

from __future__ import annotations

from nemotron_ops.gateway.queue.suspects import MAX_PAUSE_S, PAUSE_S, Suspects


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_bound() -> None:
    suspects = Suspects()
    pauses = [suspects.failed("a", now=10.0) for _ in range(7)]
    assert pauses[:4] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S]
    assert pauses[-1] == MAX_PAUSE_S


def test_a_pause_ends_by_itself_but_the_next_one_is_longer() -> None:
    suspects = Suspects()
    suspects.failed("a", now=10.0)
    assert suspects.is_paused("a", now=10.0)
    assert not suspects.is_paused("b", now=10.0)
    assert not suspects.is_paused("a", now=10.0 + PAUSE_S)
    assert suspects.failed("a", now=20.0) == 2 * PAUSE_S


def test_a_trusted_instance_is_paused_no_longer_and_begins_anew() -> None:
    suspects = Suspects()
    suspects.failed("a", now=10.0)
    suspects.failed("a", now=10.0)
    suspects.trust("a")
    assert not suspects.is_paused("a", now=10.0)
    assert suspects.paused == {}
    assert suspects.failed("a", now=10.0) == PAUSE_S
