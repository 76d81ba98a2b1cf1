"""Streams are continued after a loss: the request for the rest, and the rest that the client receives."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.plan import continuation
from nemotron_ops.gateway.continuation.rewrite import rewriter
from nemotron_ops.gateway.continuation.transcript import transcript_of
from nemotron_ops.gateway.streams import sse
from nemotron_ops.gateway.streams.relay import Diverged
from tests.fakes.scripted_engine import WORDS, call_events, events
from tests.fakes.stream_reader import put_together


def fields(**body: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])


def say(**delta: Any) -> bytes:
    value = {"id": "1", "created": 1, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


ASK = {"messages": [{"role": "user", "content": "q"}], "max_tokens": 100}


def test_text_so_far_becomes_the_beginning_of_the_answer() -> None:
    transcript = transcript_of(
        [say(role="assistant", content=None), say(reasoning_content="Hm. "), say(content="The"), say(content=" sea")]
    )
    plan = continuation(Api.CHAT, fields(**ASK), transcript)
    assert plan is not None
    body = json.loads(plan.body)
    assert body["messages"][-1] == {"role": "assistant", "content": "The sea", "reasoning_content": "Hm. "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == ("content", False)
    assert body["max_tokens"] == 97


def test_reasoning_continues_as_reasoning() -> None:
    plan = continuation(Api.CHAT, fields(**ASK), transcript_of([say(reasoning_content="Hm")]))
    assert plan is not None
    assert json.loads(plan.body)["continue_final_message"] == "reasoning_content"


def test_with_a_grammar_the_answer_is_replayed_and_only_the_rest_passes() -> None:
    transcript = transcript_of([say(content='{"a":'), say(content="1")])
    plan = continuation(Api.CHAT, fields(**ASK, grammar="root ::= object"), transcript)
    assert plan is not None
    assert json.loads(plan.body)["messages"] == ASK["messages"]
    rewrite = rewriter(Api.CHAT, plan)
    assert rewrite(say(role="assistant", content=None)) == b""
    assert rewrite(say(content='{"a"')) == b""
    assert b'"content":"2}"' in rewrite(say(content=":12}"))


def test_a_replay_that_diverges_is_not_forwarded_as_the_rest() -> None:
    plan = continuation(Api.CHAT, fields(**ASK, grammar="x"), transcript_of([say(content="yes")]))
    assert plan is not None
    with pytest.raises(Diverged):
        rewriter(Api.CHAT, plan)(say(content="no"))


def test_a_replay_that_ends_too_early_is_detected() -> None:
    plan = continuation(Api.CHAT, fields(**ASK, grammar="x"), transcript_of([say(content="yes, and more")]))
    assert plan is not None
    rewrite = rewriter(Api.CHAT, plan)
    rewrite(say(content="yes"))
    with pytest.raises(Diverged):
        rewrite(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')


def test_a_tool_call_in_progress_is_made_again_and_goes_on_under_its_id() -> None:
    def call(**function: str) -> bytes:
        named = {"id": "new", "type": "function"} if "name" in function else {}
        return say(tool_calls=[{"index": 0, **named, "function": function}])

    plan = continuation(Api.CHAT, fields(**ASK), transcript_of([call(name="f", arguments='{"ci')]))
    assert plan is not None
    rewrite = rewriter(Api.CHAT, plan)
    assert rewrite(call(name="f", arguments='{"c')) == b""
    rest = json.loads(rewrite(call(arguments='ity":1}'))[6:])
    assert rest["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": 'ty":1}'}}]
    with pytest.raises(Diverged):
        rewriter(Api.CHAT, plan)(call(name="g", arguments=""))


def test_usage_is_that_of_the_whole_answer() -> None:
    plan = continuation(Api.CHAT, fields(**ASK), transcript_of([say(content="a"), say(content="b")]))
    assert plan is not None
    usage = {
        "choices": [],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        "id": "2",
        "created": 9,
    }
    value = json.loads(rewriter(Api.CHAT, plan)(b"data: " + json.dumps(usage).encode() + b"\n\n")[6:])
    assert value["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert (value["id"], value["created"]) == ("1", 1)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.CHAT, {**ASK, "n": 2}),
        (Api.CHAT, {**ASK, "logprobs": True}),
        (Api.COMPLETION, {"prompt": [1, 2, 3]}),
    ],
)
def test_a_request_without_a_correct_continuation_is_not_continued(api: Api, body: dict[str, Any]) -> None:
    assert continuation(api, fields(**body), transcript_of([say(content="a")])) is None


def test_an_answer_that_the_client_began_itself_is_replayed() -> None:
    began = {**ASK, "messages": [*ASK["messages"], {"role": "assistant", "content": "So"}]}  # type: ignore[misc]
    plan = continuation(Api.CHAT, fields(**began), transcript_of([say(content=" it is")]))
    assert plan is not None
    assert plan.skip_content == " it is"


# every point at which a stream can be cut

THOUGHTS = ("Hm", ", ", "so.\n")
REQUESTS: dict[Api, dict[str, Any]] = {
    Api.CHAT: {"messages": [{"role": "user", "content": "q"}]},
    Api.COMPLETION: {"prompt": "q"},
    Api.NATIVE: {"prompt": "q"},
    Api.MESSAGES: {"messages": [{"role": "user", "content": "q"}]},
}
THINKING = (Api.CHAT, Api.MESSAGES)


def rest_after(parts: tuple[str, ...], said: str) -> tuple[str, ...]:
    """Those of `parts` that come after `said`."""
    while said:
        assert said.startswith(parts[0])
        said, parts = said[len(parts[0]) :], parts[1:]
    return parts


def continued(api: Api, body: dict[str, Any], seen: list[bytes], whole: list[bytes]) -> bytes:
    """What a client gets that has read `seen`; `whole` is the answer of another engine to the same request."""
    transcript = transcript_of(seen)
    if transcript.finished and api in sse.LAST_EVENT:
        return b"".join(seen) + sse.LAST_EVENT[api]
    plan = continuation(api, fields(**body), transcript)
    assert plan is not None
    given = (transcript.reasoning, transcript.content)
    if not (plan.replays or transcript.calls or api is Api.MESSAGES):
        thoughts = rest_after(THOUGHTS, transcript.reasoning) if transcript.reasoning else ()
        whole = events(api.value, rest_after(WORDS, transcript.content), thoughts, given)
    return b"".join(seen) + rewriter(api, plan)(b"".join(whole))


@pytest.mark.parametrize("thoughts", [(), THOUGHTS], ids=["words", "thoughts and words"])
@pytest.mark.parametrize("api", REQUESTS)
def test_wherever_a_stream_is_cut_the_rest_makes_it_whole(api: Api, thoughts: tuple[str, ...]) -> None:
    if thoughts and api not in THINKING:
        thoughts = ()
    whole = events(api.value, thoughts=thoughts)
    for n in range(1, len(whole)):
        again = events(api.value, thoughts=thoughts)
        got = put_together(continued(api, REQUESTS[api], whole[:n], again))
        assert got == put_together(b"".join(whole)), f"cut after {n} events"


@pytest.mark.parametrize("api", THINKING)
def test_wherever_a_tool_call_is_cut_the_call_made_again_makes_it_whole(api: Api) -> None:
    whole = call_events(api.value)
    for n in range(1, len(whole)):
        got = put_together(continued(api, REQUESTS[api], whole[:n], call_events(api.value)))
        assert got == put_together(b"".join(whole)), f"cut after {n} events"


@pytest.mark.parametrize("api", THINKING)
def test_another_tool_or_none_is_not_forwarded_as_the_call(api: Api) -> None:
    whole = call_events(api.value)
    for n in range(4, len(whole) - 3):
        for other in (call_events(api.value, name="other"), events(api.value)):
            with pytest.raises(Diverged):
                continued(api, REQUESTS[api], whole[:n], other)


def test_no_text_follows_once_the_end_has_begun() -> None:
    api = Api.MESSAGES
    whole = events(api.value)
    end = next(n for n, event in enumerate(whole) if b"_stop" in event)
    more = events(api.value, (*WORDS, " Or five."))
    with pytest.raises(Diverged):
        rewriter(api, plan_after(api, whole[: end + 1]))(b"".join(more))


def plan_after(api: Api, seen: list[bytes]) -> Any:
    plan = continuation(api, fields(**REQUESTS[api]), transcript_of(seen))
    assert plan is not None
    return plan


def test_before_a_messages_call_an_empty_text_closes_the_reasoning() -> None:
    thinking = events("messages", (), ("Hm",))[:3]
    call = [event.replace(b'"index":0', b'"index":1') for event in call_events("messages")[1:3]]
    body = json.loads(plan_after(Api.MESSAGES, [*thinking, *call]).body)
    assert [b["type"] for b in body["messages"][-1]["content"]] == ["thinking", "text"]


def test_a_native_completion_continues_from_its_tokens_if_all_are_known() -> None:
    def prompt_after(*tokens: list[int]) -> Any:
        seen = [
            b"data: " + json.dumps({"content": w, "tokens": t, "stop": False, "tokens_predicted": n + 1}).encode()
            for n, (w, t) in enumerate(zip(WORDS, tokens, strict=False))
        ]
        return json.loads(plan_after(Api.NATIVE, [event + b"\n\n" for event in seen]).body)["prompt"]

    assert prompt_after([7], [8], [9]) == ["q", 7, 8, 9]
    assert prompt_after([7], [], [9]) == "qThe answer is"


def test_the_clients_seed_is_changed_after_a_call_diverged() -> None:
    seen = call_events("chat")[:4]
    for again, seed in ((0, 5), (1, 6), (2, 7)):
        plan = continuation(Api.CHAT, fields(**ASK, seed=5), transcript_of(seen), again=again)
        assert plan is not None
        assert json.loads(plan.body)["seed"] == seed


def test_of_two_calls_the_second_continues_and_the_first_stays() -> None:
    def calls(*parts: dict[str, Any]) -> bytes:
        return b"".join(say(tool_calls=[part]) for part in parts)

    def named(index: int, name: str, new_id: str) -> dict[str, Any]:
        return {"index": index, "id": new_id, "type": "function", "function": {"name": name}}

    def more(index: int, text: str) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": text}}

    seen = [calls(named(0, "f", "a"), more(0, '{"x":"1"}'), named(1, "g", "b"), more(1, '{"y":"tw'))]
    plan = continuation(Api.CHAT, fields(**ASK), transcript_of(seen), call='<f x="1"><g y="tw', tail="")
    assert plan is not None
    assert json.loads(plan.body)["messages"][-1]["content"] == '<f x="1"><g y="tw'
    rewrite = rewriter(Api.CHAT, plan)
    rest = rewrite(calls(named(0, "f", "c"), named(1, "g", "d"), more(1, 'o"'), more(1, "}")))
    assert [v["choices"][0]["delta"]["tool_calls"] for v in sse.events(rest)] == [[more(1, 'o"')], [more(1, "}")]]
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    assert rewrite(end)
    with pytest.raises(Diverged):
        rewriter(Api.CHAT, plan)(calls(more(1, "o")) + end)
