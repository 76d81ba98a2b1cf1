"""LoRA adapters as models: names, the field for llama-server, keys, and routes that would ignore them. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nemotron_ops.gateway.api.catalog import index
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.listing import models_body
from nemotron_ops.gateway.api.routes import find
from nemotron_ops.gateway.exchange.model_access import check_model, may_use_model
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.gateway.queue.affinity import prefixes
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, from_json, to_json

BASE = ModelView(
    name="30b", names=("big", "30b"), aliases=("gpt-4o", "claude-*"), profiles={"tools": {"temperature": 0.6}},
    adapters={"support": 1.0, "legal": 0.5}, fixed={"seed": 1},
)  # fmt: skip
CATALOG = index(from_json(to_json(Snapshot(models=(BASE,)))))
USER = [{"role": "user", "content": "hi"}]


def ready(path: str, **body: Any) -> Prepared:
    route = find("POST", path)
    assert route is not None
    return prepare(route, json.dumps(body).encode(), CATALOG)


@pytest.mark.parametrize("base", ["30b", "big", "gpt-4o", "claude-opus"])
@pytest.mark.parametrize(("name", "lora"), [("support", {"id": 0, "scale": 1.0}), ("legal", {"id": 1, "scale": 0.5})])
def test_every_name_of_the_base_leads_to_its_adapters(base: str, name: str, lora: dict[str, Any]) -> None:
    found = ready("/v1/chat/completions", model=f"{base}:{name}", messages=USER)
    sent = json.loads(found.body)
    assert (sent["lora"], sent["seed"], found.named.asked) == ([lora], 1, f"{base}:{name}")
    assert found.named.model.name == "30b"


def test_the_base_is_asked_without_the_field_and_a_client_cannot_set_it() -> None:
    for model in ("30b", "30b:tools"):
        body = ready("/v1/chat/completions", model=model, messages=USER, lora=[{"id": 1, "scale": 9}]).body
        assert "lora" not in json.loads(body)
    sent = ready("/v1/chat/completions", model="30b:support", messages=USER, lora=[{"id": 1, "scale": 9}]).body
    assert json.loads(sent)["lora"] == [{"id": 0, "scale": 1.0}]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/embeddings", "/v1/rerank"])
def test_a_route_that_would_answer_as_the_base_is_refused(path: str) -> None:
    with pytest.raises(Refusal, match="does not apply adapters") as refused:
        ready(path, model="30b:support", messages=USER, max_tokens=5, input="hi")
    assert (refused.value.status, refused.value.code) == (400, "adapter_not_honoured")


def test_routes_without_the_model_take_the_name_too() -> None:
    assert ready("/tokenize", model="30b:support", content="hi").named.model.adapter == "support"


def test_a_key_for_the_base_has_no_adapter_and_the_other_way_round() -> None:
    base, adapter = CATALOG.resolve("30b").model, CATALOG.resolve("gpt-4o:support").model
    for models, may in [(("30b",), (True, False)), (("30b:support",), (False, True)), ((), (True, True))]:
        key = Key(id="k", sha256="", name="k", models=models)
        assert (may_use_model(key, base), may_use_model(key, adapter)) == may
    with pytest.raises(Refusal, match="may not use this model"):
        check_model(Key(id="k", sha256="", name="k", models=("30b:legal",)), adapter)


def test_the_list_shows_adapters_to_keys_that_may_use_them() -> None:
    key = Key(id="k", sha256="", name="k", models=("30b:legal",))
    shown = json.loads(models_body(CATALOG.snapshot, lambda m: may_use_model(key, m)))["data"]
    assert [(m["id"], m["parent"]) for m in shown] == [("30b:legal", "30b")]
    everything = json.loads(models_body(CATALOG.snapshot, lambda _: True))["data"]
    assert [m["id"] for m in everything] == ["big", "gpt-4o", "30b:support", "30b:legal"]
    assert everything[0]["adapters"] == ["30b:support", "30b:legal"]


def test_an_error_names_no_adapter_of_others() -> None:
    with pytest.raises(Refusal) as refused:
        CATALOG.resolve("nothing", ("30b:legal",))
    assert "30b:legal" in refused.value.message
    assert "support" not in refused.value.message


def test_a_cached_prompt_of_one_adapter_is_none_of_another() -> None:
    found = set()
    for name in ("30b", "30b:support", "30b:legal"):
        prepared = ready("/v1/chat/completions", model=name, messages=USER)
        route = find("POST", "/v1/chat/completions")
        assert route is not None
        found.add(prefixes(route.wire, prepared.named.model.names[0], prepared.fields, ""))
    assert len(found) == 3
