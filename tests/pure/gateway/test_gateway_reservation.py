"""Tokens of a shared context: how many a request needs, and who may have them when."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.queue.admission import Admission
from nemotron_ops.gateway.queue.reservation import Measure, answer_tokens, own_limit, prompt_bytes
from nemotron_ops.gateway.queue.ticket import Place, Ticket, least_loaded
from nemotron_ops.gateway.request import fields as field_rules
from nemotron_ops.gateway.request.counts import choices

CTX = 1000
SHARED = [Place(name="a", slots=4, tokens=CTX)]
TWO = [Place(name="a", slots=3, tokens=CTX), Place(name="b", slots=2, tokens=600)]


def offer(admission: Admission, tokens: int, key: str = "k") -> Ticket:
    ticket = Ticket(model="m", key=key, tokens=tokens)
    admission.offer(ticket, now=0.0, length=10_000, max_bytes=1 << 30, slots=4)
    return ticket


def grant(admission: Admission, places: list[Place] = SHARED) -> list[Ticket]:
    return admission.grants("m", places, lambda _, free: least_loaded(admission.inflight, free))


@dataclass
class Answer:
    events: int


# who goes when


def test_what_does_not_fit_waits_although_a_slot_is_free() -> None:
    admission = Admission()
    first, second = offer(admission, 700), offer(admission, 400)
    assert grant(admission) == [first]
    assert admission.length("m") == 1
    admission.release(first)
    assert grant(admission) == [second]
    assert admission.length("m") == 0


def test_a_request_larger_than_the_whole_runs_alone() -> None:
    admission = Admission()
    small, giant = offer(admission, 10), offer(admission, 5 * CTX)
    assert grant(admission) == [small]
    admission.release(small)
    assert grant(admission) == [giant]
    after = offer(admission, 1)
    assert grant(admission) == []
    admission.release(giant)
    assert grant(admission) == [after]


def test_a_small_one_passes_where_it_delays_nobody() -> None:
    admission = Admission()
    running, large = offer(admission, 600), offer(admission, 500)
    passes, would_delay = offer(admission, 300), offer(admission, 300)
    assert grant(admission) == [running, passes]
    admission.release(running)
    assert grant(admission) == [large]
    admission.release(passes)
    assert grant(admission) == [would_delay]


def test_the_last_slot_is_kept_for_the_first_in_line() -> None:
    admission = Admission()
    running, large = offer(admission, 900), offer(admission, 200)
    tiny = [offer(admission, 1) for _ in range(5)]
    assert grant(admission) == [running, *tiny[:3]]
    admission.release(running)
    assert grant(admission) == [large]


def test_a_stream_of_small_ones_does_not_starve_a_large_one() -> None:
    admission = Admission()
    running = [offer(admission, 300) for _ in range(3)]
    assert grant(admission) == running
    large = offer(admission, 1000, "patient")
    for n in range(20):
        offer(admission, 300, f"new-{n}")
        granted = grant(admission)
        if large in granted:
            break
        running += granted
        admission.release(running.pop(0))
    assert large.instance == "a"


def test_another_instance_takes_what_the_claimed_one_cannot() -> None:
    admission = Admission()
    first = offer(admission, 500)
    assert grant(admission, TWO) == [first]
    large, fits = offer(admission, 900), offer(admission, 600)
    assert grant(admission, TWO) == [fits]
    assert (fits.instance, large.instance) == ("b", "")


def test_who_claimed_an_instance_and_left_blocks_nobody() -> None:
    admission = Admission()
    running, leaver, next_one = offer(admission, 900), offer(admission, 1000), offer(admission, 600)
    assert grant(admission) == [running]
    admission.leave(leaver)
    admission.release(running)
    assert grant(admission) == [next_one]
    assert admission.length("m") == 0


def test_a_claim_moves_when_its_instance_goes() -> None:
    admission = Admission()
    running, large = offer(admission, 900), offer(admission, 800)
    assert grant(admission) == [running]
    assert grant(admission, [Place(name="b", slots=2, tokens=CTX)]) == [large]
    assert large.instance == "b"


def test_an_answer_that_outgrows_its_room_is_counted_as_it_is() -> None:
    admission = Admission()
    grown = offer(admission, 300)
    grown.prompt_tokens, grown.answer = 100, Answer(events=500)
    assert grant(admission) == [grown]
    assert admission.held_tokens("a") == 600
    waits = offer(admission, 500)
    assert grant(admission) == []
    admission.release(grown)
    assert grant(admission) == [waits]
    assert admission.held_tokens("a") == 500


def test_where_slots_have_their_own_context_tokens_do_not_matter() -> None:
    admission = Admission()
    both = [offer(admission, 5 * CTX), offer(admission, 5 * CTX)]
    assert grant(admission, [Place(name="a", slots=2)]) == both


def test_a_place_in_the_line_is_counted_over_all_lines() -> None:
    admission = Admission()
    running = offer(admission, 900)
    assert grant(admission) == [running]
    first, second, other = offer(admission, 800), offer(admission, 800), offer(admission, 800, "other")
    assert grant(admission) == []
    assert [admission.position(t) for t in (first, second, other)] == [1, 3, 3]


Step = tuple[str, str, int]


@dataclass
class Line:
    """What a test knows of a queue from outside."""

    admission: Admission = field(default_factory=Admission)
    waiting: list[Ticket] = field(default_factory=list)
    running: list[Ticket] = field(default_factory=list)

    def step(self, what: str, key: str, n: int) -> None:
        if what == "offer":
            self.waiting.append(offer(self.admission, n, key))
        elif what == "release" and self.running:
            self.admission.release(self.running.pop(n % len(self.running)))
        elif what == "leave" and self.waiting:
            self.admission.leave(self.waiting.pop(n % len(self.waiting)))
        elif what == "lose" and self.running:
            lost = self.running.pop(n % len(self.running))
            self.admission.release(lost)
            self.admission.retry(lost)
            self.waiting.append(lost)
        granted = grant(self.admission, TWO)
        self.running += granted
        self.waiting = [t for t in self.waiting if t not in granted]

    def check(self) -> None:
        assert self.admission.length("m") == len(self.waiting)
        for place in TWO:
            own = [t for t in self.running if t.instance == place.name]
            assert len(own) <= place.slots
            assert sum(t.tokens for t in own) <= place.tokens or len(own) == 1
            assert self.admission.held_tokens(place.name) == sum(t.tokens for t in own)


STEPS = st.lists(
    st.tuples(st.sampled_from(["offer", "offer", "release", "leave", "lose"]), st.sampled_from("abc"),
              st.integers(1, CTX + 200)),
    max_size=60,
)  # fmt: skip


@settings(deadline=None)
@given(STEPS)
def test_no_context_overflows_and_everybody_is_served(steps: list[Step]) -> None:
    line = Line()
    for what, key, n in steps:
        line.step(what, key, n)
        line.check()
    turns = 0
    while line.waiting or line.running:
        line.step("release", "a", 0)
        line.check()
        turns += 1
        assert turns <= 200, "somebody waits for ever"
    assert line.admission.inflight == {}
    assert line.admission.held_tokens("a") == line.admission.held_tokens("b") == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, CTX), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, CTX))
def test_what_passes_never_delays_the_first_in_line(others: list[tuple[int, int]], tokens: int) -> None:
    """Once all that ran when it became the first are done, it runs, whatever came after it."""
    line = Line()
    for n in range(3):
        line.step("offer", "a", CTX - 100 * n)
        line.step("offer", "a", 300)
    before = list(line.running)
    first = offer(line.admission, tokens, "b")
    while line.waiting:  # those that were there before it
        line.step("release", "a", 0)
        before = list(line.running)
    line.waiting.append(first)
    for size, key in others:
        line.step("offer", f"k{key}", size)
    for ticket in [t for t in line.running if t in before]:
        line.running.remove(ticket)
        line.admission.release(ticket)
    line.step("none", "", 0)
    assert first.instance


@pytest.mark.parametrize("tokens", [1, 100, 400])
def test_keys_get_slots_by_their_weight_also_where_tokens_are_scarce(tokens: int) -> None:
    admission = Admission()
    for _ in range(60):
        offer(admission, tokens, "light")
        ticket = Ticket(model="m", key="heavy", weight=3.0, tokens=tokens)
        admission.offer(ticket, now=0.0, length=10_000, max_bytes=1 << 30, slots=4)
    order: list[Ticket] = []
    while len(order) < 40:
        granted = grant(admission)
        order += granted
        for done in granted:
            admission.release(done)
    assert 27 <= sum(t.key == "heavy" for t in order[:40]) <= 33


# how many tokens


def test_prompts_are_measured_by_what_answers_say() -> None:
    measure = Measure()
    guess = measure.estimate(10_000)
    assert 3_000 <= guess <= 4_000
    for _ in range(20):
        measure.learn(10_000, 8_000)
    assert 8_000 <= measure.estimate(10_000) <= 10_000
    for _ in range(500):
        measure.learn(10_000, 2_000)
    assert 2_000 <= measure.estimate(10_000) <= 2_600


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(-5, 1 << 24))), st.integers(0, 1 << 27))
def test_no_answer_makes_estimates_absurd(said: list[tuple[int, int]], size: int) -> None:
    measure = Measure()
    for bytes_, tokens in said:
        measure.learn(bytes_, tokens)
    assert 0 < measure.estimate(size) <= 32 + 1.15 * size


def test_inline_media_are_pieces_and_no_text() -> None:
    image = b'{"url":"data:image/png;base64,' + b"A" * 50_000 + b'"}'
    body = b'{"content":[' + image + b"," + image + b"]}"
    size, pieces = prompt_bytes(body)
    assert pieces == 2
    assert size < 200
    assert prompt_bytes(b"x" * 100) == (100, 0)
    assert prompt_bytes(b"x" * 5000 + b";base64,AAA")[1] == 1


def fields(**values: object) -> dict[str, msgspec.Raw]:
    return {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in values.items()}


@pytest.mark.parametrize(
    ("given_fields", "limit"),
    [
        ({}, None), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 9}, 9), ({"max_tokens": -1}, None),
        ({"max_tokens": 32768}, None), ({"max_tokens": 3, "n_predict": 8}, 8), ({"max_tokens": "7"}, None),
    ],
)  # fmt: skip
def test_a_limit_is_the_clients_by_any_of_its_names(given_fields: dict[str, object], limit: int | None) -> None:
    assert own_limit(field_rules.limits(Api.CHAT, fields(**given_fields)), 32768) == limit


def test_numbers_of_any_length_are_read() -> None:
    huge = {"max_tokens": msgspec.Raw(b"9" * 5000), "n": msgspec.Raw(b"9" * 5000)}
    assert (own_limit(field_rules.limits(Api.CHAT, huge), None) or 0) > 1 << 40
    assert choices(huge) == 64
    assert choices(fields(n=3)) == 3
    assert choices(fields(n="x")) == choices({}) == choices(fields(n=0)) == 1


def test_a_named_limit_gets_all_of_its_room_and_none_a_share() -> None:
    assert answer_tokens(900, None, prompt_tokens=100, share_tokens=250) == 900
    assert answer_tokens(None, None, prompt_tokens=100, share_tokens=250) == 150
    assert answer_tokens(None, 32, prompt_tokens=100, share_tokens=250) == 32
    assert answer_tokens(None, 32768, prompt_tokens=800, share_tokens=200) == 50
