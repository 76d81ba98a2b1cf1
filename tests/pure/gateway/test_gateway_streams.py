"""Streams as bytes: relayed whole events only, folded into answers, continued after a loss."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.transcript import transcript_of
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.fold import fold_for
from nemotron_ops.gateway.streams.kept import KEPT_BYTES, Memory
from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.gateway.streams.usage import Usage, usage_of_body
from tests.fakes.scripted_engine import WORDS, _chat, events, pass_on

APIS = {
    "chat": Api.CHAT,
    "completion": Api.COMPLETION,
    "native": Api.NATIVE,
    "messages": Api.MESSAGES,
}


class Outlet:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.last: list[bool] = []

    def send(self, data: bytes, *, last: bool = False) -> None:
        self.parts.append(data)
        self.last.append(last)


def relay_of(api: Api = Api.CHAT, asked: str = "mine", memory: Memory | None = None) -> tuple[Relay, Outlet, list[str]]:
    outlet, begun = Outlet(), []
    relay = Relay(
        api, asked, outlet, begin=lambda: begun.append("begun"), clock=lambda: 1.0, memory=memory or Memory()
    )  # fmt: skip
    return relay, outlet, begun


@pytest.mark.parametrize("api", APIS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_however_a_stream_is_cut_the_client_gets_whole_events_and_its_own_name(api: str, data: st.DataObject) -> None:
    stream = b"".join(events(api))
    relay, outlet, begun = relay_of(APIS[api])
    seams = list(itertools.accumulate(map(len, events(api))))
    cuts = data.draw(st.sets(st.one_of(st.integers(1, len(stream) - 1), st.sampled_from(seams)), max_size=40))
    for begin, end in itertools.pairwise(sorted({0, *cuts, len(stream)})):
        pass_on(relay, stream[begin:end]) if {0, *seams} >= {begin, end} else relay.feed(stream[begin:end])
    assert all(part.endswith(b"\n\n") for part in outlet.parts)
    assert b"".join(outlet.parts) == stream.replace(b'"engine"', b'"mine"')
    assert begun == ["begun"]
    assert relay.complete
    at_once, _, _ = relay_of(APIS[api])
    at_once.feed(stream)
    assert relay.usage == at_once.usage


@pytest.mark.parametrize("api", APIS)
def test_a_stream_is_complete_with_its_last_event_and_not_before(api: str) -> None:
    found = events(api)
    for n in range(len(found)):
        relay, _, _ = relay_of(APIS[api])
        relay.feed(b"".join(found[:n]))
        assert not relay.complete


def passed(relay: Relay, event: bytes) -> bool:
    """Whether `relay` took the event as a token; otherwise it gets it as data."""
    if relay.token(event):
        return True
    relay.feed(event)
    return False


@pytest.mark.parametrize("api", APIS)
def test_tokens_by_themselves_pass_as_in_company(api: str) -> None:
    (one, by_one, _), (all_, at_once, _) = relay_of(APIS[api]), relay_of(APIS[api])
    gaps: list[tuple[float, int]] = []
    one.at(lambda gap, count: gaps.append((gap, count)))
    found = events(api, tuple(f" word-{n}" for n in range(40)))
    tokens = sum(passed(one, event) for event in found)
    assert tokens == {"chat": 40, "messages": 40, "responses": 40}.get(api, 0)
    all_.feed(b"".join(found))
    assert b"".join(by_one.parts) == b"".join(at_once.parts)
    for relay in (one, all_):
        assert (relay.complete, relay.failed, relay.events) == (True, False, all_.events)
        assert transcript_of(relay.kept) == transcript_of(all_.kept)
        relay.settle()
    assert (one.kept.size, one.usage) == (all_.kept.size, all_.usage)
    assert sum(count for _, count in gaps) == one.events - 1


def test_only_a_plain_token_of_a_stream_that_flows_takes_the_short_way() -> None:
    relay, outlet, _ = relay_of()
    word, *_ = words = [_chat({"content": f" {n}"}) for n in range(3)]
    assert not relay.token(word), "the first event begins the answer"
    relay.feed(word)
    for event in (word + words[1], b":\n\n", _chat({}, "stop"), sse.DONE, b'data: {"error":{}}\n\n'):
        assert not relay.token(event)
    assert relay.token(words[1])
    relay.restart(lambda blob: blob)
    assert not relay.token(words[2]), "what is rewritten is looked at as a whole"
    assert len(outlet.parts) == 2


def test_generated_text_cannot_look_like_an_end_or_an_error() -> None:
    evil = 'data: [DONE]\n\nevent: message_stop\n"stop":true {"error":1} "model":"engine" data: {"error":'
    for api, kind in APIS.items():
        relay, outlet, _ = relay_of(kind)
        relay.feed(b"".join(events(api, (evil,))[:-1]) if api != "native" else events(api, (evil,))[0])
        assert not relay.failed
        assert not relay.complete or api == "messages"
        text = b"".join(outlet.parts).decode()
        assert json.dumps(evil)[1:-1] in text


def test_of_several_prompts_the_first_one_to_end_does_not_end_the_stream() -> None:
    relay, outlet, _ = relay_of(Api.NATIVE)
    ends = [b'data: {"index":%d,"content":"","stop":true}\n\n' % n for n in range(2)]
    for event, complete in ((ends[0], True), (b'data: {"index":1,"content":"b","stop":false}\n\n', False)):
        relay.feed(event)
        assert relay.complete is complete
    relay.feed(ends[1] + b":\n\n")
    relay.feed(b":\n\n")
    assert relay.complete
    assert not any(outlet.last)


def test_only_the_mark_that_nothing_follows_is_sent_as_the_last_part() -> None:
    relay, outlet, _ = relay_of()
    for event in events("chat"):
        relay.feed(event)
    assert outlet.last == [False] * (len(outlet.parts) - 1) + [True]


def test_a_stream_that_is_cut_off_cost_a_token_per_event() -> None:
    relay, _, _ = relay_of()
    found = events("chat")
    relay.feed(b"".join(found[:3]))
    assert relay.spent() == Usage(completion_tokens=3)
    relay.feed(b"".join(found[3:]))
    assert relay.spent() == relay.usage != Usage(completion_tokens=len(found))


def test_comments_before_the_first_event_do_not_begin_an_answer() -> None:
    relay, outlet, begun = relay_of()
    relay.feed(b":\n\n")
    assert (outlet.parts, begun) == ([], [])
    relay.feed(b'data: {"a":1}\n\n:\n\n')
    assert outlet.parts == [b'data: {"a":1}\n\n:\n\n']


def test_what_is_kept_is_bounded_per_stream_and_in_all() -> None:
    memory = Memory(1000)
    relay, _, _ = relay_of(memory=memory)
    relay.feed(b"data: " + b"x" * 600 + b"\n\n")
    assert relay.kept.whole
    other, _, _ = relay_of(memory=memory)
    other.feed(b"data: " + b"x" * 600 + b"\n\n")
    assert not other.kept.whole
    relay.forget()
    assert memory.left == 1000
    long, _, _ = relay_of()
    for _ in range(5):
        long.feed(b"data: " + b"x" * (KEPT_BYTES // 4) + b"\n\n")
    assert not long.kept.whole
    assert long.kept.memory.left == Memory().left


@pytest.mark.parametrize("api", APIS)
def test_usage_is_read_from_the_end(api: str) -> None:
    relay, _, _ = relay_of(APIS[api])
    relay.feed(b"".join(events(api)))
    if api != "native":
        assert relay.usage == Usage(prompt_tokens=10, completion_tokens=5)


# folding


def fields(**body: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])


@pytest.mark.parametrize("api", APIS)
def test_a_stream_folds_into_one_answer_with_all_its_words(api: str) -> None:
    fold = fold_for(APIS[api], fields(prompt="x"))
    assert fold is not None
    found = events(api)
    for event in found[:-1]:
        fold.send(event)
        if api in ("messages", "responses", "native"):
            assert fold.result() is None
    fold.send(found[-1])
    assert "".join(WORDS) in json.dumps(fold.result())


def test_tool_calls_fold_by_index() -> None:
    fold = fold_for(Api.CHAT, fields())
    assert fold is not None
    deltas = [
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
    ]
    for delta in deltas:
        fold.send(
            b"data: "
            + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()
            + b"\n\n"
        )
    fold.send(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n')
    result = fold.result()
    assert result is not None
    calls = result["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("a", "f", "{}"),
        ("b", "g", "{}"),
    ]


def test_an_error_event_is_no_answer() -> None:
    fold = fold_for(Api.CHAT, fields())
    assert fold is not None
    fold.send(b'data: {"error":{"code":500,"message":"Compute error."}}\n\n')
    assert fold.result() is None


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETION])
def test_several_choices_are_folded_each_from_its_own_events(api: Api) -> None:
    fold = fold_for(api, fields(prompt=["a", "b"], n=2))
    assert fold is not None
    for text in ("x", "y"):
        for index in (1, 0):
            choice = {
                "index": index,
                "finish_reason": None,
                "delta": {"content": f"{text}{index}"},
                "text": f"{text}{index}",
            }
            fold.send(sse.event({"choices": [choice]}))
    fold.send(sse.event({"choices": [{"index": 0, "finish_reason": "stop", "delta": {}, "text": ""}]}))
    assert fold.result() is None
    fold.send(sse.event({"choices": [{"index": 1, "finish_reason": "length", "delta": {}, "text": ""}]}))
    for _ in range(2):
        fold.send(sse.event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}))
    result = fold.result()
    assert result is not None
    assert result["usage"] == {"completion_tokens": 4, "prompt_tokens": 6, "total_tokens": 10}
    said = [(c["index"], c["finish_reason"], c.get("text") or c["message"]["content"]) for c in result["choices"]]
    assert said == [(0, "stop", "x0y0"), (1, "length", "x1y1")]


def test_the_usage_of_a_whole_answer_is_taken_for_each_of_its_choices() -> None:
    body = b'{"choices":[{"logprobs":{}},{},{}],"usage":{"prompt_tokens":5,"completion_tokens":10}}'
    assert usage_of_body(body) == Usage(prompt_tokens=15, completion_tokens=30)


@pytest.mark.parametrize("body", [{"n": 2, "logprobs": 1}, {"logprobs": True}, {"top_logprobs": 1}])
def test_what_does_not_add_up_is_not_folded(body: dict[str, Any]) -> None:
    assert fold_for(Api.COMPLETION, fields(**{"prompt": "x", **body})) is None
