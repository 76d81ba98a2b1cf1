"""A recipe's further names for its model, and a prompt that is too long in each API's words. Pure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemotron_ops.errors import RecipeError
from nemotron_ops.gateway.api.catalog import index
from nemotron_ops.gateway.api.errors import Refusal, engine_error, error_object, upstream_error
from nemotron_ops.gateway.api.listing import models_body
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.exchange.model_access import may_use_model
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.recipes.load import parse_recipe
from nemotron_ops.recipes.resolve import disputed_alias, resolve
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, from_json, to_json

BIG = ModelView(
    name="30b", names=("big", "30b"), aliases=("claude-*", "gpt-4o"), profiles={"tools": {"temperature": 0.6}}
)  # fmt: skip
SMALL = ModelView(name="4b", names=("small", "4b"), aliases=("claude-haiku-*", "gpt-*", "claude-*", "30b"))
SNAPSHOT = Snapshot(models=(BIG, SMALL))


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("claude-opus-4-8[1m]", "30b"),
        ("claude-haiku-4-5-20251001", "4b"),  # more letters
        ("claude-sonnet-5:tools", "30b"),
        ("gpt-4o", "30b"),  # exact
        ("gpt-5", "4b"),
        ("30b", "30b"),  # no alias takes another model's own name
    ],
)
def test_an_alias_stands_for_its_model_and_the_answer_has_the_name_that_was_asked_for(asked: str, model: str) -> None:
    found = index(SNAPSHOT).resolve(asked)
    assert (found.model.name, found.asked) == (model, asked)
    assert found.filled_in.get("temperature") == (0.6 if asked.endswith(":tools") else None)


@pytest.mark.parametrize("asked", ["o3", "xclaude-opus", "claude", "claude-" + "x" * 300])
def test_other_names_are_unknown(asked: str) -> None:
    with pytest.raises(Refusal, match="does not exist"):
        index(SNAPSHOT).resolve(asked)


def test_the_list_has_exact_aliases_and_no_patterns() -> None:
    listed = [card["id"] for card in json.loads(models_body(SNAPSHOT, lambda _: True))["data"]]
    assert listed == ["big", "gpt-4o", "small", "30b"]


def test_a_key_holds_for_the_model_and_not_for_an_alias() -> None:
    def key(model: str) -> Key:
        return Key(id="k", sha256="", name="n", models=(model,))

    assert may_use_model(key("30b"), BIG)
    assert not may_use_model(key("gpt-4o"), BIG)
    assert not may_use_model(key("4b"), BIG)


def test_aliases_reach_a_gateway_of_another_version() -> None:
    assert from_json(json.loads(json.dumps(to_json(SNAPSHOT)))).models[0].aliases == BIG.aliases
    assert from_json({"models": [{"name": "m", "names": ["m"]}]}).models[0].aliases == ()


def recipe(name: str, *aliases: str) -> str:
    return f'[model]\npath = "/{name}.gguf"\nalias = "x/{name}"\naliases = {json.dumps(aliases)}\n'


@pytest.mark.parametrize(
    ("one", "other", "disputed"),
    [
        (("gpt-4o",), ("gpt-4o",), "gpt-4o"),
        (("b",), (), "b"),
        (("x/b",), (), "x/b"),
        (("claude-*",), ("claude-*", "claude-haiku-*"), None),
    ],
)
def test_two_recipes_do_not_share_an_exact_alias(
    one: tuple[str, ...], other: tuple[str, ...], disputed: str | None
) -> None:
    plans = [resolve(parse_recipe(recipe(n, *found), name=n, origin=n)) for n, found in (("a", one), ("b", other))]
    found = disputed_alias(plans)
    assert (found and found[0]) == disputed


@pytest.mark.parametrize("alias", ["", "a b", "x" * 300, "a*b*c*d*e*"])
def test_an_alias_that_no_client_can_send_is_refused(alias: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.aliases"):
        parse_recipe(recipe("a", alias), name="a", origin="a.toml")


@pytest.mark.parametrize("name", ["tiny", "4b", "30b", "120b"])
def test_shipped_recipes_answer_to_the_names_of_coding_agents(name: str) -> None:
    text = (Path(__file__).parents[3] / "recipes" / f"{name}.toml").read_text()
    assert parse_recipe(text, name=name, origin=name).model.aliases == ("claude-*", "gpt-*")


# a prompt that is too long


OVERFLOW = json.dumps(
    {
        "error": {
            "code": 400,
            "message": "too large",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9,
            "n_ctx": 4,
        }
    }
).encode()


def test_a_prompt_that_is_too_long_is_told_in_each_apis_words() -> None:
    chat = json.loads(upstream_error(Api.CHAT, 400, OVERFLOW))["error"]
    assert (chat["code"], chat["type"]) == ("context_length_exceeded", "invalid_request_error")
    assert (chat["n_prompt_tokens"], chat["n_ctx"]) == (9, 4)
    claudes = json.loads(upstream_error(Api.MESSAGES, 400, OVERFLOW))["error"]
    assert (claudes["type"], claudes["message"]) == (
        "invalid_request_error",
        "prompt is too long: 9 tokens > 4 maximum",
    )
    assert error_object(Api.RESPONSES, engine_error(400, OVERFLOW))["error"]["code"] == "context_length_exceeded"


def test_another_error_of_the_engine_keeps_its_words() -> None:
    body = b'{"error":{"code":400,"message":"exceed_context_size_error","type":"invalid_request_error"}}'
    assert json.loads(upstream_error(Api.CHAT, 400, body))["error"]["message"] == "exceed_context_size_error"
