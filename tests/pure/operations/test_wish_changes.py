"""Changes of a wish as a table, and its JSON: whatever comes in, a wish or a UsageError comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.cli.add import ModelOptions
from nemotron_ops.cli.serve import OF_ALL, ServeOptions
from nemotron_ops.errors import UsageError
from nemotron_ops.operations.wish import ModelWish
from nemotron_ops.operations.wish_changes import FLAGS, changed, find, from_json, same_request, to_json

A = ModelWish(target="30b", name="30b", quant="Q8_0", flags={"ctx_size": 8192, "parallel": 2})
B = ModelWish(target="/m/x.gguf", name="x", flags={"alias": "mine"}, extra=("--poll", "0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYED = st.dictionaries(st.sampled_from(["op", "name", "model", "target", "flags", "extra", "quant"]), JSON, max_size=4)


def test_a_wish_goes_through_json_unchanged() -> None:
    assert from_json(json.loads(json.dumps(to_json((A, B))))) == (A, B)


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({"op": "add", "model": {"target": "4b"}}, (A, B, ModelWish(target="4b"))),
        ({"op": "add", "model": to_json((A,))[0]}, (A, B)),
        ({"op": "add", "model": {"target": "30b", "flags": dict(A.flags)}}, (A, B)),
        ({"op": "remove", "name": "30b"}, (B,)),
        ({"op": "remove", "name": "/m/x.gguf"}, (A,)),
        ({"op": "remove", "name": "mine"}, (A,)),
        (
            {"op": "change", "name": "30b", "model": {"flags": {"parallel": 4}}},
            (replace(A, flags={"ctx_size": 8192, "parallel": 4}), B),
        ),
        (
            {"op": "change", "name": "30b", "model": {"flags": {"ctx_size": None}, "quant": "Q4_K_M"}},
            (replace(A, flags={"parallel": 2}, quant="Q4_K_M"), B),
        ),
        ({"op": "change", "name": "x", "model": {"extra": [], "target": "other"}}, (A, replace(B, extra=()))),
    ],
)
def test_a_change_touches_one_model(change: dict[str, Any], after: tuple[ModelWish, ...]) -> None:
    assert changed((A, B), change) == after


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"op": "add", "model": {"target": "30b"}}, "cannot add 30b: it is served already"),
        ({"op": "add", "model": {}}, "model.target: a recipe, repository or file is needed"),
        ({"op": "add", "model": {"target": "a", "flags": {"port": 1}}}, "model.flags.port: unknown key"),
        ({"op": "add", "model": {"target": "a", "flags": {"ctx_size": [1]}}}, "model.flags.ctx_size: expected"),
        ({"op": "add", "model": {"target": "a", "extra": [1]}}, "model.extra: expected a list of strings"),
        ({"op": "add", "model": {"target": 1}}, "model.target: expected a string, found 1"),
        ({"op": "add"}, "model: expected an object"),
        ({"op": "remove", "name": "30"}, "cannot find '30' among the models that are served"),
        ({"op": "remove"}, "cannot find 'None' among"),
        ({"op": "sell"}, "no such change: 'sell'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_by_its_cause(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        changed((A, B), change)
    assert complaint in refused.value.message


@given(KEYED | JSON)
def test_any_json_is_a_change_or_refused(value: Any) -> None:
    change = value if isinstance(value, dict) else {"op": "add", "model": value}
    try:
        after = changed((A, B), change)
    except UsageError:
        return
    assert from_json(json.loads(json.dumps(to_json(after)))) == after


@given(JSON)
def test_any_json_is_a_wish_or_refused(value: Any) -> None:
    try:
        from_json(value)
    except UsageError as exc:
        refused = exc.message
    else:
        refused = "models: none"
    assert refused.startswith("models")


def test_a_decided_quant_does_not_make_a_different_request() -> None:
    assert same_request(A, replace(A, quant=""))
    assert not same_request(A, replace(A, quant="Q2_K"))
    assert not same_request(A, replace(A, profile="chat"))


def test_the_recipes_name_is_found_before_another_models_target() -> None:
    other = ModelWish(target="30b", name="y")
    assert find((other, A), "30b") == A
    assert find((A,), "mine") is None


def test_add_has_the_options_that_serve_has_for_a_model_and_they_can_be_wished() -> None:
    of_models = set(ModelOptions.__dataclass_fields__) - {"quant", "profile", "adapters"}
    assert of_models <= FLAGS
    assert of_models | OF_ALL | {"special"} == set(ServeOptions.__dataclass_fields__) & (FLAGS | OF_ALL)
