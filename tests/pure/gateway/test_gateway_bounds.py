"""Bounds of a request: what is within goes on unchanged, what is beyond is refused, each tried from both sides."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.catalog import index
from nemotron_ops.gateway.api.errors import Refusal, error_object
from nemotron_ops.gateway.api.routes import ROUTES, Api, Kind, find
from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.grammar import check_grammar
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]
INSTANCE = InstanceView(name="i", model="tiny", state=State.READY, socket="", api_key_file="", ctx_tokens=1024)
DIRECTORY = index(Snapshot(models=(ModelView(name="tiny", names=("tiny",)),), instances=(INSTANCE,)))


def ready(path: str, body: dict[str, Any] | bytes) -> Prepared:
    route = find("POST", path)
    assert route is not None
    return prepare(route, body if isinstance(body, bytes) else json.dumps(body).encode(), DIRECTORY)


def code(path: str, **body: Any) -> str:
    """The code of the refusal of a request; empty if it goes on, with the fields unchanged."""
    try:
        prepared = ready(path, body)
    except Refusal as refusal:
        return refusal.code if refusal.status == 400 else f"{refusal.status}"
    sent = json.loads(prepared.body)
    assert {name: sent[name] for name in body if name in sent and name not in ("stream", "stream_options")} == {
        name: value for name, value in body.items() if name in sent and name not in ("stream", "stream_options")
    }
    return ""


def chat(**fields: Any) -> str:
    return code(CHAT, messages=USER, **fields)


# requests that llama-server never ends

EMPTY = ["", [""], ["", ""], ["x", ""], [[]], [[], [1]], [[""]], {"prompt_string": ""}, [{"prompt_string": ""}, "x"]]


@pytest.mark.parametrize("path", ["/v1/completions", "/completion", "/completions"])
@pytest.mark.parametrize("prompt", EMPTY, ids=str)
def test_several_choices_for_an_empty_prompt_are_refused_and_one_is_not(path: str, prompt: Any) -> None:
    assert code(path, prompt=prompt, n=2) == "empty_prompt"
    assert code(path, prompt=prompt, n=1) == ""
    assert code(path, prompt=prompt) == ""


@pytest.mark.parametrize(
    "prompt", ["x", " ", [1, 2], ["x", "y"], [[1], [2]], ["x", 1], {"prompt_string": "x"}], ids=str
)
def test_several_choices_for_prompts_with_text_go_on(prompt: Any) -> None:
    assert code("/v1/completions", prompt=prompt, n=2) == ""


def test_an_empty_conversation_has_no_choices_and_an_infill_always_has_tokens() -> None:
    assert code(CHAT, messages=[], n=2) == code("/chat/completions", messages=[], n=2) == "empty_prompt"
    assert code("/infill", prompt="", input_prefix="", input_suffix="", n=2) == ""


@pytest.mark.parametrize("count", [b"4.0", b"4e0", b"2.5", b"true", b'"4"', b"[4]", b"1.0"])
def test_a_number_of_choices_that_is_no_whole_number_is_refused(count: bytes) -> None:
    with pytest.raises(Refusal, match="n: expected a whole number"):
        ready(CHAT, b'{"messages":[],"stream":true,"n":' + count + b"}")


# types


@pytest.mark.parametrize("path", [r.path for r in ROUTES if r.kind is Kind.GENERATE])
@pytest.mark.parametrize("value", [1, 0, "true", "yes", [], {}])
def test_a_stream_of_a_wrong_type_is_refused(path: str, value: Any) -> None:
    body = {"messages": USER, "prompt": "x", "input": "x", "max_tokens": 9, "stream": value}
    assert code(path, **body) == "invalid_field"
    for right in (True, False, None):
        assert code(path, **{**body, "stream": right}) == ""


def test_stream_options_of_a_wrong_type_are_refused() -> None:
    wrong: Any
    for wrong in (1, "include_usage", [], True, {"include_usage": "yes"}, {"include_usage": 1}):
        assert chat(stream=True, stream_options=wrong) == "invalid_field"
    right: Any
    for right in (None, {}, {"include_usage": True}, {"include_usage": None}, {"other": 1}):
        assert chat(stream=True, stream_options=right) == ""


# samplers


@pytest.mark.parametrize("samplers", ["d" * 2, "edd", "k" * 40, ["dry", "dry"], ["top-k", "top_k"], ["x"] * 33])
def test_a_sampler_comes_once(samplers: Any) -> None:
    assert chat(samplers=samplers) == "limit_exceeded"


@pytest.mark.parametrize("samplers", ["edskypmxt", "", ["dry", "top_k"], [], None])
def test_samplers_that_come_once_go_on(samplers: Any) -> None:
    assert chat(samplers=samplers) == ""


# grammars

COSTLY = {
    "nesting": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
    "chain": "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1}" for n in range(5000)) + '\nr5000 ::= "a"',
    "empty": "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(24)) + '\nr24 ::= "a" | ""',
    "few empty": "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(8)) + '\nr8 ::= "a" | ""',
    "alike": "root ::= r0\n" + "\n".join(f'r{n} ::= r{n + 1} | r{n + 1} "x"' for n in range(40)) + '\nr40 ::= "a"',
    "alternatives": "root ::= " + "|".join(f'"{n}"' for n in range(5000)),
    "copies": 'root ::= "' + "a" * 30_000 + '"{2000}',
    "optional": "root ::= " + '"a"? ' * 2000,
    "endless": 'root ::= e root "x" | "y"\ne ::= f f\nf ::= "" | "z"',
    "left": 'root ::= root "a" | "b"',
    "repeated": 'root ::= (("a"?){0,40}){0,40}',
}
USEFUL = {
    "text": 'root ::= "(((((" [(((\\]] # ((((',
    "expression": 'root ::= term "+" root | term "-" root | term\nterm ::= "(" root ")" | [0-9]+',
    "list": 'root ::= ("- " [^\\n]+ "\\n")+',
    "json": r'root ::= object\nvalue ::= object | array | string | number | "true"\nobject ::= "{" ws '
    r'(string ":" ws value ("," ws string ":" ws value)*)? "}" ws\narray ::= "[" ws (value ("," ws value)*)? "]" ws\n'
    r'string ::= "\"" ([^"\\] | "\\" .)* "\"" ws\nnumber ::= "-"? [0-9]+ ("." [0-9]+)? ws\nws ::= ([ \t\n] ws)?',
    "choices": "root ::= " + "|".join(f'"{n}"' for n in range(900)),
    "tail": "root ::= a\na ::= ([a-z] a)?",
    "broken": 'root ::= ( " | {3 ::= x',
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/completion", "/v1/responses", "/infill"])
def test_a_grammar_that_costs_too_much_is_refused(path: str, text: str) -> None:
    assert code(path, messages=USER, prompt="x", input="x", grammar=text) in ("limit_exceeded", "invalid_field")


@pytest.mark.parametrize("text", [text.replace("\\n", "\n") for text in USEFUL.values()], ids=USEFUL)
def test_a_useful_grammar_goes_on(text: str) -> None:
    assert chat(grammar=text) == ""


def test_a_grammar_is_bounded_where_its_limit_says() -> None:
    for extra in (0, 1):
        nested = "(" * (limits.GRAMMAR_DEPTH.most + extra)
        assert (chat(grammar=f'root ::= {nested}"a"{nested.replace("(", ")")}') == "") == (not extra)
        rules = "\n".join(f'r{n} ::= "a"' for n in range(limits.GRAMMAR_RULES.most - 1 + extra))
        assert (chat(grammar='root ::= "a"\n' + rules) == "") == (not extra)
    text = 'root ::= "a" #'.ljust(limits.GRAMMAR_BYTES.most, "x")
    check_grammar(text)
    with pytest.raises(Refusal, match="bytes"):
        check_grammar(text + "x")


WORDS = st.sampled_from(
    (
        "root",
        "a",
        "b",
        " ::= ",
        "\n",
        "|",
        "(",
        ")",
        "?",
        "*",
        "+",
        "{2}",
        "{0,9}",
        "{1,}",
        '"x"',
        '""',
        "[a-z]",
        ".",
        "#",
        "{",
    )
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=60).map("".join))
def test_any_text_is_measured_quickly_or_refused(text: str) -> None:
    before = time.thread_time()
    with contextlib.suppress(Refusal):
        check_grammar("root ::= " + text)
    assert time.thread_time() - before < 1


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(("(", '"a"?', "[a]*", "(a)", "a ", "|", "a::=", '("a"?)*', "{", "\n", "# ", '"', "a b|")))
def test_the_longest_grammar_of_one_word_is_measured_in_half_a_second(word: str) -> None:
    text = "root ::= " + word * ((limits.GRAMMAR_BYTES.most - 9) // len(word))
    before = time.thread_time()
    with contextlib.suppress(Refusal):
        check_grammar(text)
    assert time.thread_time() - before < 2


# schemas and tools


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(depth: int) -> dict[str, Any]:
    named = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**named, f"d{depth}": {"const": 1}}, "$ref": "#/$defs/d0"}


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}


LOOP = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "allOf": [{"$ref": "#/$defs/a"}]}
TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}, "value": {"type": "integer"}}}
    },
    "$ref": "#/$defs/node",
}
BEYOND: list[Any] = [
    nested(limits.SCHEMA_DEPTH.most + 1), doubling(30), LOOP, optional(limits.SCHEMA_OPTIONAL.most + 1),
    {"allOf": [optional(100), {"anyOf": [optional(100), optional(100)]}]},
    {"enum": [str(n) for n in range(limits.SCHEMA_WIDTH.most + 1)]},
    {"anyOf": [{"enum": list(range(600))}, {"enum": list(range(600))}]},
    {"type": "string", "pattern": "^" + "a" * limits.PATTERN_BYTES.most + "$"},
    {"prefixItems": [{"type": "string", "maxLength": 2000}] * 101},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "x#/$defs/a"}}, "$ref": "#/$defs/a"},
]  # fmt: skip
WITHIN: list[Any] = [
    nested(limits.SCHEMA_DEPTH.most - 2), doubling(9), TREE, optional(limits.SCHEMA_OPTIONAL.most),
    {"enum": [str(n) for n in range(limits.SCHEMA_WIDTH.most)]},
    {"type": ["string", "null"], "maxLength": 10**9}, {}, True, None, {"$ref": "https://example.com/x"},
    {"properties": {"properties": {"type": "string"}, "enum": {"type": "string"}, "$ref": {"type": "string"}}},
]  # fmt: skip


def carriers(schema: Any) -> list[tuple[str, dict[str, Any]]]:
    """The requests that carry a schema, in every API."""
    made = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return [
        (CHAT, {"messages": USER, "response_format": made}),
        (CHAT, {"messages": USER, "response_format": {"type": "json_object", "schema": schema}}),
        (CHAT, {"messages": USER, "tools": [tool]}),
        ("/apply-template", {"messages": USER, "tools": [tool]}),
        ("/v1/chat/completions/input_tokens", {"messages": USER, "tools": [tool]}),
        ("/completion", {"prompt": "x", "json_schema": schema}),
        ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}),
        ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": schema}]}),
        ("/v1/messages", {"messages": USER, "max_tokens": 9, "tools": [{"name": "f", "input_schema": schema}]}),
        ("/v1/messages/count_tokens", {"messages": USER, "tools": [{"name": "f", "input_schema": schema}]}),
    ]


@pytest.mark.parametrize("schema", BEYOND, ids=range(len(BEYOND)))
def test_a_schema_beyond_a_bound_is_refused_wherever_it_stands(schema: Any) -> None:
    for path, body in carriers(schema):
        assert code(path, **body) == "limit_exceeded", path


@pytest.mark.parametrize("schema", WITHIN, ids=range(len(WITHIN)))
def test_a_schema_within_the_bounds_goes_on(schema: Any) -> None:
    for path, body in carriers(schema):
        assert code(path, **body) == "", path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(("#", "#/a", "#/$defs/a", "#/anyOf/0", "x")),
    lambda c: (
        st.lists(c, max_size=4)
        | st.dictionaries(
            st.sampled_from(("$ref", "$defs", "a", "allOf", "anyOf", "enum", "properties", "required")), c
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(JSON)
def test_any_schema_is_measured_or_refused(schema: Any) -> None:
    for path, body in carriers(schema):
        assert code(path, **body) in ("", "limit_exceeded")


def test_tools_messages_arguments_and_fields_are_counted() -> None:
    tools = [{"type": "function", "function": {"name": str(n)}} for n in range(limits.TOOLS.most + 1)]
    assert chat(tools=tools[1:]) == ""
    assert chat(tools=tools) == "limit_exceeded"
    assert chat(chat_template_kwargs={"a": nested(limits.KWARGS_DEPTH.most)}) == "limit_exceeded"
    assert chat(chat_template_kwargs={"a": "x" * limits.KWARGS_BYTES.most}) == "limit_exceeded"
    assert code("/apply-template", messages=[{}] * limits.MESSAGES.most) == ""
    assert code("/apply-template", messages=[{}] * (limits.MESSAGES.most + 1)) == "limit_exceeded"
    ready(CHAT, {"messages": USER, **{f"x{n}": n for n in range(limits.BODY_KEYS.most - 1)}})
    assert chat(**{f"x{n}": n for n in range(limits.BODY_KEYS.most)}) == "limit_exceeded"


# size


@pytest.mark.parametrize("path", [r.path for r in ROUTES if r.infers and r.kind is not Kind.UPLOAD])
def test_more_text_than_any_context_holds_is_refused(path: str) -> None:
    room = INSTANCE.ctx_tokens * limits.CONTEXT_BYTES.most
    body = {"messages": [{"role": "user", "content": "x" * (room - 600)}]}
    assert code(path, **body) == ""
    body["messages"].append({"role": "user", "content": "x" * 600})
    assert code(path, **body) == "context_length_exceeded"


def test_media_do_not_count_as_text_and_several_prompts_have_room_each() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}}
    assert code(CHAT, messages=[{"role": "user", "content": [image]}]) == ""
    hidden = {"type": "text", "text": "A" * 200_000}
    assert code(CHAT, messages=[{"role": "user", "content": [image, hidden]}]) == "context_length_exceeded"
    assert code("/v1/embeddings", input=["x" * 1000] * 200) == ""
    assert code("/v1/embeddings", input="x" * 200_000) == "context_length_exceeded"


def test_a_refusal_has_the_shape_of_its_api() -> None:
    refusal = limits.exceeded(limits.TOOLS)
    assert error_object(Api.MESSAGES, refusal)["error"]["type"] == "invalid_request_error"
    assert error_object(Api.CHAT, refusal)["error"]["code"] == "limit_exceeded"
