"""What becomes of a request's body: names, profiles, limits, reasoning, and fields that must not get through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.catalog import index, unavailable
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import ROUTES, Api, Kind, find
from nemotron_ops.gateway.request.fields import allowed
from nemotron_ops.gateway.request.prepare import Prepared, prepare, without
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]
MODEL = ModelView(
    name="30b",
    names=("unsloth/Nemotron-3-Nano-30B-A3B", "30b"),
    profiles={"tools": {"temperature": 0.6, "top_p": 0.95}, "fast": {"reasoning": False, "temp": 0.2}},
    defaults={"max_tokens": 1000},
    fixed={"seed": 3407},
    capped={"max_tokens": 4000, "temperature": 1.5},
)
PLAIN = ModelView(name="tiny", names=("tiny",))
SIZED = ModelView(name="sized", names=("sized",))
INSTANCE = InstanceView(name="s", model="sized", state=State.READY, socket="", api_key_file="", ctx_tokens=4096)
DIRECTORY = index(Snapshot(models=(MODEL, PLAIN, SIZED), instances=(INSTANCE,), default_model="tiny"))


def ready(path: str, body: dict[str, Any] | bytes) -> Prepared:
    route = find("POST", path)
    assert route is not None
    return prepare(route, body if isinstance(body, bytes) else json.dumps(body).encode(), DIRECTORY)


def sent(path: str, **body: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(ready(path, body).body)
    return value


def chat(model: str = "30b", **body: Any) -> dict[str, Any]:
    return sent(CHAT, model=model, messages=USER, stream=True, **body)


# names


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("30b", "30b"),
        ("unsloth/Nemotron-3-Nano-30B-A3B", "30b"),
        ("30b:tools", "30b"),
        ("unsloth/Nemotron-3-Nano-30B-A3B:fast", "30b"),
        ("", "tiny"),
    ],
)
def test_names_aliases_and_profiles_find_their_model(asked: str, model: str) -> None:
    named = DIRECTORY.resolve(asked)
    assert named.model.name == model
    assert named.asked == (asked or "tiny")


@pytest.mark.parametrize("asked", ["31b", "30b:nope", "30b:", ":tools", "30b:tools:tools", "30B"])
def test_an_unknown_name_lists_the_known_ones(asked: str) -> None:
    with pytest.raises(Refusal) as caught:
        DIRECTORY.resolve(asked)
    assert caught.value.status == 404
    for known in ("unsloth/Nemotron-3-Nano-30B-A3B", "30b:tools", "tiny"):
        assert known in caught.value.message


def test_the_only_model_needs_no_name_and_of_two_none_is_guessed() -> None:
    assert index(Snapshot(models=(PLAIN,))).resolve("").model is PLAIN
    with pytest.raises(Refusal, match="names no model"):
        index(Snapshot(models=(MODEL, PLAIN))).resolve("")


def test_a_model_goes_before_a_profile_of_the_same_name() -> None:
    other = ModelView(name="30b:tools", names=("30b:tools",))
    for models in [(MODEL, other), (other, MODEL)]:
        assert index(Snapshot(models=models)).resolve("30b:tools").model is other


# bodies


def test_a_body_in_which_nothing_changes_keeps_every_byte() -> None:
    body = b'{ "model" : "tiny",\n "messages": [ {"role":"user","content":"\\u0041"} ], "stream":true, "x_n": 1e2}'
    assert ready(CHAT, body.replace(b', "x_n": 1e2', b"")).body == body.replace(b', "x_n": 1e2', b"")
    changed = ready(CHAT, body).body
    assert b"x_n" not in changed
    assert b'[ {"role":"user","content":"\\u0041"} ]' in changed


def test_a_profile_fills_in_what_the_client_left_out() -> None:
    assert chat("30b:tools")["temperature"] == 0.6
    assert chat("30b:tools", temperature=0.1)["temperature"] == 0.1
    assert "temperature" not in chat("30b")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_limit_by_any_of_its_names_is_the_clients_and_is_capped(name: str) -> None:
    assert chat("30b", **{name: 50})[name] == 50
    assert chat("30b", **{name: 50}).keys() & {"max_tokens", "max_completion_tokens", "n_predict"} == {name}
    assert chat("30b", **{name: 99999})[name] == 4000
    assert chat("30b", **{name: -1})[name] == 4000


def test_a_default_limit_has_each_apis_own_name() -> None:
    assert chat()["max_tokens"] == 1000
    assert sent("/v1/responses", model="30b", input="x", stream=True)["max_output_tokens"] == 1000
    assert sent("/completion", model="30b", prompt="x", stream=True)["n_predict"] == 1000


def test_a_fixed_field_wins_over_the_client() -> None:
    assert chat(seed=1)["seed"] == 3407


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_null_is_as_good_as_left_out(name: str) -> None:
    assert chat("30b", **{name: None})["max_tokens"] == 1000
    assert chat("30b:tools", temperature=None)["temperature"] == 0.6
    assert "temperature" in (chat("30b", temperature=None))
    assert chat("30b:fast", reasoning_effort=None)["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("value", [b"9" * 5000, b"1e400", b"9" * 30, b"-" + b"9" * 5000])
def test_a_number_that_cannot_be_read_is_capped_as_well(value: bytes) -> None:
    body = b'{"model":"30b","stream":true,"messages":[],"max_tokens":' + value + b"}"
    assert json.loads(ready(CHAT, body).body)["max_tokens"] == 4000


@pytest.mark.parametrize("name", ["repeat_last_n", "dry_penalty_last_n"])
@pytest.mark.parametrize(
    ("asked", "sent_on"),
    [(2**31 - 1, 4096), (2.0**31, 4096), (2**32 + 2**31 - 1, 4096), (-(2**31) - 1, -1), (64, 64), (-1, -1)],
)
def test_samplers_look_back_no_further_than_the_context(name: str, asked: float, sent_on: int) -> None:
    assert sent(CHAT, model="sized", messages=USER, stream=True, **{name: asked})[name] == sent_on
    if asked > 64:
        assert sent("/completion", model="tiny", prompt="x", stream=True, **{name: asked})[name] == 65536


@pytest.mark.parametrize(
    "field",
    [
        {"samplers": ["dry"] * 33},
        {"logit_bias": {str(n): 1 for n in range(1025)}},
        {"logit_bias": [[n, 1] for n in range(1025)]},
        {"stop": ["x"] * 65},
        {"stop": "x" * 65537},
        {"dry_sequence_breakers": ["x"] * 65},
        {"n": 65},
        {"n_probs": 257},
        {"top_logprobs": 1e9},
    ],
    ids=str,
)
def test_more_of_something_than_is_useful_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=f"{next(iter(field))}: at most"):
        chat(**field)


def test_what_is_within_bounds_is_left_alone() -> None:
    within = {
        "samplers": ["dry", "top_k"],
        "stop": ["x"] * 64,
        "n": 2,
        "n_probs": 10,
        "logprobs": True,
        "top_logprobs": None,
    }
    assert chat("30b", **within).items() >= within.items()


def test_a_stream_says_its_end_also_where_fields_are_chosen() -> None:
    wanted = {"model": "tiny", "prompt": "x", "response_fields": ["content"]}
    assert sent("/completion", **wanted, stream=True)["response_fields"] == ["content", "stop"]
    assert sent("/completion", **wanted)["response_fields"] == ["content", "timings"]  # for the usage


def test_a_field_that_was_added_for_the_usage_is_taken_out_of_the_answer() -> None:
    chosen = {"model": "tiny", "prompt": "x"}
    assert ready("/completion", {**chosen, "response_fields": ["content"]}).hidden == "timings"
    for fields in ([], ["timings"], None, "x"):
        assert ready("/completion", {**chosen, "response_fields": fields}).hidden == ""
    assert without(b'{"content":"a","timings":{"b":1}}', "timings") == b'{"content":"a"}'
    assert without(b'[{"content":"a","timings":1},{"timings":2}]', "timings") == b'[{"content":"a"},{}]'


def test_a_request_without_a_model_gets_the_first_name_of_the_list() -> None:
    model = ModelView(name="30b", names=("vendor/thirty", "30b"))
    for default in ("", "30b", "vendor/thirty"):
        named = index(Snapshot(models=(model,), default_model=default)).resolve("")
        assert (named.asked, named.model) == ("vendor/thirty", model)
    assert index(Snapshot(models=(model,))).resolve("30b").asked == "30b"


def test_a_capped_field_is_lowered_but_not_set() -> None:
    assert chat(temperature=9)["temperature"] == 1.5
    assert "temperature" not in chat()


@pytest.mark.parametrize(
    "field",
    [
        "id_slot",
        "n_cache_reuse",
        "n_discard",
        "lora",
        "sse_ping_interval",
        "chat_parser",
        "generation_prompt",
        "anything",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/completion", "/v1/responses", "/infill"])
def test_a_field_that_is_not_known_to_be_harmless_is_dropped(field: str, path: str) -> None:
    assert field not in sent(path, **{"model": "tiny", "messages": USER, "prompt": "x", "input": "x", field: 1})


def test_a_field_twice_reaches_the_engine_once() -> None:
    body = b'{"model":"tiny","messages":[],"stream":true,"id_slot":1,"seed":1,"seed":2}'
    assert ready(CHAT, body).body.count(b"seed") == 1


def test_a_body_that_is_nested_a_thousand_deep_is_refused() -> None:
    ready(CHAT, b'{"messages":[],"logit_bias":' + b"[" * 60 + b"]" * 60 + b"}")
    with pytest.raises(Refusal, match="too deeply"):
        ready(CHAT, b'{"messages":[],"tools":' + b"[" * 1000 + b"]" * 1000 + b"}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"{]",
        b"\xff",
        b'{"a":1}x',
        b'{"model":3}',
        b'{"a":' * 5000,
        b'{"model":"\xff"}',
        b'{"model":"30b","messages":[{"role":"user","content":"\xff"}]}',
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        ready(CHAT, body)
    assert caught.value.status == 400


def test_a_whole_answer_is_asked_for_as_a_stream() -> None:
    whole = ready(CHAT, {"model": "tiny", "messages": USER})
    assert whole.fold is not None
    assert not whole.stream
    assert json.loads(whole.body)["stream"] is True
    assert json.loads(whole.body)["stream_options"] == {"include_usage": True}
    assert ready(CHAT, {"model": "tiny", "messages": USER, "n": 2}).fold is not None
    special: dict[str, Any]
    for special in ({"logprobs": True}, {"continue_final_message": True}, {"grammar": 'root ::= " "'}):
        assert ready(CHAT, {"model": "tiny", "messages": USER, **special}).fold is None


# reasoning


@pytest.mark.parametrize(
    ("field", "on", "budget"),
    [
        ({"enable_thinking": False}, False, None),
        ({"enable_thinking": True}, True, None),
        ({"reasoning": {"effort": "none"}}, False, None),
        ({"reasoning": {"enabled": False}}, False, None),
        ({"reasoning": {"max_tokens": 64}}, None, 64),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 99}}, True, 99),
        ({"thinking_budget": 10}, None, 10),
        ({"reasoning_budget_tokens": 7}, None, 7),
    ],
)
def test_reasoning_in_other_servers_words(field: dict[str, Any], on: bool | None, budget: int | None) -> None:
    body = sent(CHAT, model="tiny", messages=USER, stream=True, **field)
    assert body.get("chat_template_kwargs", {}).get("enable_thinking") is on
    assert body.get("reasoning_budget_tokens") == budget
    assert not body.keys() & {"enable_thinking", "reasoning", "thinking", "thinking_budget"}


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_an_effort_in_openais_newer_words_is_kept(effort: str) -> None:
    assert chat(reasoning={"effort": effort})["reasoning_effort"] == effort
    assert chat(reasoning={"effort": effort}, reasoning_effort="low")["reasoning_effort"] == "low"
    asked = {"model": "30b", "input": "x", "stream": True, "reasoning": {"effort": effort}}
    assert sent("/v1/responses", **asked)["reasoning"] == {"effort": effort}


def test_template_arguments_of_the_client_are_kept() -> None:
    body = chat(chat_template_kwargs={"a": 1}, enable_thinking=False)
    assert body["chat_template_kwargs"] == {"a": 1, "enable_thinking": False}


def test_a_profile_switches_reasoning_off_unless_the_client_decided() -> None:
    assert chat("30b:fast")["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in chat("30b:fast", reasoning_effort="high")
    on = chat("30b:fast", chat_template_kwargs={"enable_thinking": True})
    assert on["chat_template_kwargs"] == {"enable_thinking": True}


def test_anthropics_thinking_is_switched_off_where_the_engine_does_not_know_how() -> None:
    body = sent("/v1/messages", model="tiny", max_tokens=5, messages=USER, thinking={"type": "disabled"}, stream=True)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    max_leaves=8,
)
FIELDS = ("messages", "model", "tools", "max_tokens", "chat_template_kwargs", "thinking", "stream", "reasoning")


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_anywhere_is_prepared_or_refused(name: str, value: Any) -> None:
    status = 200
    try:
        ready(CHAT, {"model": "30b", "messages": USER, name: value})
    except Refusal as refusal:
        status = refusal.status
    assert status in (200, 400, 404)


# routes


def test_every_generating_route_has_an_allow_list_of_its_own() -> None:
    for route in ROUTES:
        if route.kind is Kind.GENERATE:
            assert route.api is not Api.OTHER
            assert "stream" in allowed(route.api)


# hope


def view(state: State) -> InstanceView:
    return InstanceView(name="a", model="m", state=state, socket="", api_key_file="", reason="out of memory")


@pytest.mark.parametrize(
    ("states", "on_demand", "code"),
    [
        ((State.STARTING,), False, ""),
        ((State.BACKOFF,), False, ""),
        ((State.FAILED, State.READY), False, ""),
        ((State.FAILED,), True, "model_failed"),
        ((State.FAILED, State.STOPPED), False, "model_failed"),
        ((State.STOPPED,), False, "model_stopped"),
        ((State.STOPPED,), True, ""),
        ((), True, ""),
        ((), False, "model_stopped"),
    ],
)
def test_who_waits_in_vain_is_told_why(states: tuple[State, ...], on_demand: bool, code: str) -> None:
    model = ModelView(name="m", names=("m",), on_demand=on_demand)
    refusal = unavailable(model, tuple(view(s) for s in states))
    assert (refusal.code if refusal else "") == code
    if code == "model_failed":
        assert refusal is not None
        assert "out of memory" in refusal.message
