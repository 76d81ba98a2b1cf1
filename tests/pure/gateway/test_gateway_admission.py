"""The queue: bounded, fair, never more on an instance than it has slots."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.queue.admission import Admission
from nemotron_ops.gateway.queue.ticket import Place, Ticket, least_loaded

ONE = [Place(name="a", slots=1)]


def offer(admission: Admission, key: str, *, length: int = 1000, weight: float = 1.0, size: int = 0) -> Ticket:
    ticket = Ticket(model="m", key=key, weight=weight, bytes=size)
    admission.offer(ticket, now=0.0, length=length, max_bytes=1000, slots=1)
    return ticket


def grant(admission: Admission, places: list[Place] = ONE) -> list[Ticket]:
    return admission.grants("m", places, lambda _, free: least_loaded(admission.inflight, free))


def serve_all(admission: Admission) -> list[str]:
    """Keys in the order in which they are served by one slot."""
    order = []
    while granted := grant(admission):
        (ticket,) = granted
        order.append(ticket.key)
        admission.release(ticket)
    return order


def test_one_key_is_served_in_order() -> None:
    admission = Admission()
    tickets = [offer(admission, "k") for _ in range(5)]
    served = []
    while granted := grant(admission):
        served += granted
        admission.release(granted[0])
    assert served == tickets


def test_a_crowd_of_one_key_does_not_hold_up_another() -> None:
    admission = Admission()
    for _ in range(100):
        offer(admission, "many")
    offer(admission, "one")
    assert serve_all(admission).index("one") <= 1


def test_keys_get_slots_by_their_weight() -> None:
    admission = Admission()
    for _ in range(60):
        offer(admission, "light")
        offer(admission, "heavy", weight=3.0)
    first = Counter(serve_all(admission)[:40])
    assert 28 <= first["heavy"] <= 32


def test_a_key_that_was_away_gets_no_credit() -> None:
    admission = Admission()
    offer(admission, "back")
    serve_all(admission)
    for _ in range(50):
        offer(admission, "steady")
    for _ in range(20):
        served = grant(admission)[0]
        admission.release(served)
    for _ in range(10):
        offer(admission, "back")
    assert Counter(serve_all(admission)[:10])["back"] <= 6


def test_a_steady_stream_of_newcomers_starves_nobody() -> None:
    admission = Admission()
    offer(admission, "patient")
    order = []
    for n in range(20):
        offer(admission, f"new-{n}")
        (ticket,) = grant(admission)
        order.append(ticket.key)
        admission.release(ticket)
    assert "patient" in order[:3]


def test_a_full_line_refuses_with_a_time_to_come_back() -> None:
    admission = Admission()
    running = offer(admission, "k")
    grant(admission)
    admission.release(running, service_s=7.0)
    for _ in range(3):
        offer(admission, "k", length=3)
    with pytest.raises(Refusal) as caught:
        offer(admission, "k", length=3)
    assert caught.value.status == 503
    assert caught.value.retry_after_s == pytest.approx(28.0)
    assert caught.value.detail["queue_position"] == 4


def test_waiting_bodies_are_bounded_in_bytes() -> None:
    admission = Admission()
    offer(admission, "k", size=600)
    with pytest.raises(Refusal):
        offer(admission, "k", size=600)
    grant(admission)
    offer(admission, "k", size=600)


def test_who_leaves_the_line_is_forgotten() -> None:
    admission = Admission()
    offer(admission, "k")
    leaver = offer(admission, "k")
    admission.leave(leaver)
    admission.leave(leaver)
    assert admission.length("m") == 1
    assert leaver not in grant(admission, [Place(name="a", slots=9)])


def test_a_lost_request_goes_before_all_others_and_elsewhere() -> None:
    admission = Admission()
    lost = offer(admission, "k")
    grant(admission)
    offer(admission, "other")
    admission.release(lost)
    lost.avoid = "a"
    admission.retry(lost)
    first, _ = grant(admission, [Place(name="a", slots=4), Place(name="b", slots=4)])
    assert first is lost
    assert lost.instance == "b"


def test_the_instance_that_failed_is_better_than_none() -> None:
    admission = Admission()
    ticket = offer(admission, "k")
    ticket.avoid = "a"
    assert grant(admission) == [ticket]


def test_the_emptier_instance_is_chosen_by_share_of_slots() -> None:
    admission = Admission()
    places = [Place(name="small", slots=2), Place(name="large", slots=8)]
    for _ in range(10):
        offer(admission, "k")
    grant(admission, places)
    assert admission.inflight == {"small": 2, "large": 8}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["offer", "grant", "release", "leave"])), max_size=80)
)
def test_no_slot_is_given_twice_and_nobody_is_lost(steps: list[tuple[str, str]]) -> None:
    admission = Admission()
    places = [Place(name="x", slots=2), Place(name="y", slots=1)]
    waiting: list[Ticket] = []
    running: list[Ticket] = []
    for key, step in steps:
        if step == "offer":
            waiting.append(offer(admission, key))
        elif step == "grant":
            granted = grant(admission, places)
            running += granted
            waiting = [t for t in waiting if t not in granted]
        elif step == "release" and running:
            admission.release(running.pop())
        elif step == "leave" and waiting:
            admission.leave(waiting.pop())
        assert admission.length("m") == len(waiting)
        assert Counter(t.instance for t in running) == Counter(admission.inflight)
        assert all(admission.inflight.get(p.name, 0) <= p.slots for p in places)
    while waiting or running:
        for ticket in running:
            admission.release(ticket)
        running = grant(admission, places)
        assert running or not waiting
        waiting = [t for t in waiting if t not in running]
    assert admission.inflight == {}


def test_keys_that_are_gone_take_no_memory() -> None:
    admission = Admission()
    for n in range(1000):
        ticket = offer(admission, f"k{n}")
        grant(admission)
        admission.release(ticket)
    assert len(admission._models["m"].virtual_time) < 100


def go(admission: Admission, key: str = "k", places: list[Place] = ONE, **more: Any) -> bool:
    ticket = Ticket(model="m", key=key, **more)
    return admission.go(ticket, places, lambda _, free: least_loaded(admission.inflight, free))


def test_a_request_goes_without_a_line_only_where_a_slot_is_free_and_nobody_waits() -> None:
    admission = Admission()
    assert go(admission)
    assert admission.inflight == {"a": 1}
    assert not go(admission)
    waiting = offer(admission, "early")
    two = [Place(name="a", slots=2)]
    assert not go(admission, "late", two)
    assert grant(admission, two) == [waiting]


def test_a_request_with_several_answers_goes_at_once_where_a_slot_for_each_is_free() -> None:
    admission = Admission()
    eight = [Place(name="a", slots=8)]
    assert go(admission, places=eight, answers=5)
    assert not go(admission, places=eight, answers=4)
    assert go(admission, places=eight, answers=3)
    assert admission.inflight == {"a": 8}


def test_a_request_goes_at_once_where_its_tokens_are_free_and_gives_them_back() -> None:
    admission = Admission()
    shared = [Place(name="a", slots=8, tokens=4096)]
    first = Ticket(model="m", key="k", tokens=3000)
    assert admission.go(first, shared, lambda _, free: free[0])
    assert admission.held_tokens("a") == 3000
    assert not go(admission, places=shared, tokens=1097)
    assert not go(admission, places=shared, tokens=9999), "one that is larger than all of it runs alone"
    assert go(admission, places=shared, tokens=1096)
    assert admission.inflight == {"a": 2}
    admission.release(first)
    assert admission.held_tokens("a") == 1096
    assert go(admission, places=shared, tokens=3000)


def test_who_left_the_line_is_owed_nothing_once_nobody_waits() -> None:
    admission = Admission()
    assert go(admission)
    gone = [offer(admission, "k") for _ in range(3)]
    for ticket in gone:
        admission.leave(ticket)
    admission.release(Ticket(model="m", key="k", instance="a", slots=1))
    assert go(admission)
    offer(admission, "k")
    offer(admission, "other")
    admission.release(Ticket(model="m", key="k", instance="a", slots=1))
    assert serve_all(admission) == ["k", "other"]
