"""Who gets how much of the slots' time, over long times: simulated, with requests of all lengths and widths."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind
from nemotron_ops.gateway.queue.admission import Admission
from nemotron_ops.gateway.queue.lines import MOST_COST_S
from nemotron_ops.gateway.queue.ticket import Place, Ticket, least_loaded
from nemotron_ops.gateway.request.counts import answers
from nemotron_ops.gateway.streams.usage import Tally, Usage, usage_of_body

Wish = tuple[str, float, int]  # key, seconds, answers


def simulate(wishes: list[Wish], places: list[Place], *, until_s: float = 1e9) -> list[tuple[float, Ticket, float]]:
    """All are asked for at once; returns when each began, and how long it ran."""
    admission, seconds = Admission(), {}
    for key, long_s, count in wishes:
        ticket = Ticket(model="m", key=key, answers=count)
        admission.offer(ticket, now=0.0, length=1 << 30, max_bytes=1, slots=1)
        seconds[ticket] = long_s
    now, order, began = 0.0, itertools.count(), []
    running: list[tuple[float, int, Ticket]] = []
    while now < until_s:
        for ticket in admission.grants("m", places, lambda _, free: least_loaded(admission.inflight, free)):
            began.append((now, ticket, seconds[ticket]))
            heapq.heappush(running, (now + seconds[ticket], next(order), ticket))
        taken: defaultdict[str, int] = defaultdict(int)
        for _, _, ticket in running:
            taken[ticket.instance] += ticket.slots
        assert all(taken.get(p.name, 0) <= p.slots for p in places), "a slot was given twice"
        assert taken == admission.inflight
        if not running:
            assert len(began) == len(wishes), "requests wait although nothing runs"
            break
        now, _, ticket = heapq.heappop(running)
        admission.release(ticket, service_s=seconds[ticket], took_s=seconds[ticket])
    return began


WISHES = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0.01, 50), st.sampled_from([1, 1, 1, 2, 3, 9])), max_size=40
)


@settings(deadline=None)
@given(WISHES, st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_everybody_gets_his_turn_whatever_others_ask_for(wishes: list[Wish], slots: list[int]) -> None:
    places = [Place(name=str(n), slots=count) for n, count in enumerate(slots)]
    assert len(simulate(wishes, places)) == len(wishes)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 20), st.floats(0.05, 20), st.integers(1, 3))
def test_keys_get_the_same_time_however_long_their_requests_are(one: float, other: float, slots: int) -> None:
    end = 40 * max(one, other)
    wishes = [("a", one, 1)] * (int(2 * end * slots / one) + 1) + [("b", other, 1)] * (int(2 * end * slots / other) + 1)
    time: defaultdict[str, float] = defaultdict(float)
    for began, ticket, long_s in simulate(wishes, [Place(name="x", slots=slots)], until_s=end):
        time[ticket.key] += min(end, began + long_s) - began
    assert abs(time["a"] - time["b"]) <= (slots + 2) * (one + other) + 2


def test_a_key_that_floods_with_short_requests_does_not_starve_one_with_long_ones() -> None:
    wishes = [("flood", 0.1, 1)] * 20_000 + [("long", 30.0, 1)] * 5
    began = simulate(wishes, [Place(name="x", slots=1)], until_s=600)
    times = [at for at, ticket, _ in began if ticket.key == "long"]
    assert len(times) == 5
    assert all(after - before <= 30 + MOST_COST_S + 1 for before, after in itertools.pairwise(times))


def test_a_very_long_answer_is_not_held_against_its_key_for_ever() -> None:
    wishes = [("long", 10_000.0, 1), ("long", 1.0, 1)] + [("flood", 1.0, 1)] * 20_000
    began = simulate(wishes, [Place(name="x", slots=1)], until_s=12_000)
    first, second = (at for at, ticket, _ in began if ticket.key == "long")
    assert second - (first + 10_000) <= MOST_COST_S + 2


def test_a_wide_request_waits_until_there_is_room_and_small_ones_pass_only_where_that_costs_it_nothing() -> None:
    places = [Place(name="x", slots=4), Place(name="y", slots=4)]
    wishes: list[Wish] = [("a", 10.0, 1)] * 8 + [("b", 5.0, 4)] + [("c", 1.0, 1)] * 50
    began = simulate(wishes, places)
    (wide,) = [at for at, ticket, _ in began if ticket.answers == 4]
    assert wide <= 20.0


# how many answers a request asks for


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ('"a"', 1),
        ("[1, 2, 3]", 1),
        ("[ -1]", 1),
        ('["a", 2]', 1),
        ("[]", 1),
        ('["a"]', 1),
        ('["a", "b"]', 2),
        ("[[1], [2], [3]]", 3),
        ('["a, b, c", "d"]', 2),
        ('["' + "," * 1000 + '", "d"]', 2),
        ("[null, null]", 2),
        ('{"prompt_string": "a"}', 1),
        ("null", 1),
    ],
)
def test_prompts_are_counted_as_llama_server_reads_them(prompt: str, count: int) -> None:
    fields = {"prompt": msgspec.Raw(prompt.encode())}
    assert answers(Kind.GENERATE, Api.COMPLETION, fields) == count
    assert answers(Kind.GENERATE, Api.NATIVE, {**fields, "n": msgspec.Raw(b"3")}) == 3 * count
    assert answers(Kind.GENERATE, Api.CHAT, {**fields, "n": msgspec.Raw(b"2")}) == 2
    assert answers(Kind.LIGHT, Api.OTHER, {"content": fields["prompt"]}) == 1


@pytest.mark.parametrize("item", [b'"a"', b"{}", b"[]", b"null"])
def test_more_prompts_than_anybody_may_ask_for_are_refused_without_making_them(item: bytes) -> None:
    many = msgspec.Raw(b"[%b]" % b",".join([item] * 200_000))
    for kind, api, name in ((Kind.GENERATE, Api.NATIVE, "prompt"), (Kind.POOL, Api.OTHER, "input")):
        with pytest.raises(Refusal, match=f"{name}: at most"):
            answers(kind, api, {name: many})
    with pytest.raises(Refusal, match="at most"):
        answers(Kind.GENERATE, Api.NATIVE, {"prompt": msgspec.Raw(b'["a","b","c"]'), "n": msgspec.Raw(b"64")})


def test_inputs_to_embed_and_documents_to_rank_are_counted() -> None:
    for name in ("input", "content", "documents", "texts"):
        assert answers(Kind.POOL, Api.OTHER, {name: msgspec.Raw(b'["a","b","c"]')}) == 3


# what several answers cost


def completion(index: int, *, last: bool) -> bytes:
    usage = ',"usage":{"prompt_tokens":10,"completion_tokens":5}' if last else ""
    return b'data: {"choices":[{"text":"x","index":%d}]%b}\n\n' % (index, usage.encode())


def test_the_usage_of_several_prompts_is_added() -> None:
    tally = Tally()
    stream = [completion(n % 3, last=n >= 3) for n in range(6)]
    found = [tally.take(blob) for blob in stream]
    assert found[2] is None
    assert found[-1] == Usage(prompt_tokens=30, completion_tokens=15)


def test_timings_that_come_with_every_token_are_not_added() -> None:
    tally = Tally()
    for n in range(1, 6):
        for index in range(2):
            event = b'data: {"index":%d,"content":"x","timings":{"prompt_n":7,"predicted_n":%d}}\n\n' % (index, n)
            used = tally.take(event)
    assert used == Usage(prompt_tokens=14, completion_tokens=10)


def test_the_usage_of_several_choices_comes_in_events_of_its_own() -> None:
    tally = Tally()
    used = None
    for _ in range(2):
        used = tally.take(b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n')
    assert used == Usage(prompt_tokens=20, completion_tokens=10)


def test_a_whole_answer_of_several_prompts_is_added_too() -> None:
    one = {"content": "x", "timings": {"prompt_n": 7, "predicted_n": 3, "cache_n": 1}}
    whole = usage_of_body(msgspec.json.encode([one, one]))
    assert whole == Usage(prompt_tokens=16, completion_tokens=6, cached_tokens=2)
