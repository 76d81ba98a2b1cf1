"""Sampling comes with a model: from its header, else from the hub, which is asked once. A hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nemotron_ops.installation import Installation
from nemotron_ops.models.gguf import Header
from nemotron_ops.operations.model_sampling import with_own_sampling
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.resolve import Plan, resolve
from tests.fakes.hub import Hub
from tests.fakes.machines import LAPTOP

pytestmark = pytest.mark.process

BASE = "owner/Model"
CONFIG = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def header(**values: Any) -> Header:
    named = {"general.base_model.0.repo_url": f"https://huggingface.co/{BASE}"}
    return Header(version=3, values={**named, **values}, tensors=(), data_offset=0)


def sampled(plan: Plan) -> dict[str, tuple[Any, str]]:
    found = {k: plan.settings.get(k) for k in ("temp", "top_p", "top_k", "min_p")}
    return {k: (s.value, s.source) for k, s in found.items() if s is not None}


def test_the_hub_is_asked_once_for_what_the_header_does_not_state(hub: Hub, layout: Layout) -> None:
    hub.add(BASE, "generation_config.json", json.dumps(CONFIG).encode(), lfs=False)
    here = Installation(layout=layout, env=hub.env, known=LAPTOP)
    plan = resolve(recipe_for("owner/Model-GGUF", layout))
    source = f"generation_config.json of {BASE}"
    expected = {"temp": (0.7, source), "top_p": (0.8, source), "top_k": (20, source)}

    assert sampled(with_own_sampling(plan, header(), here, may_ask=False)) == {}
    assert sampled(with_own_sampling(plan, header(), here, may_ask=True)) == expected
    asked = len(hub.file_requests())
    assert asked > 0
    assert sampled(with_own_sampling(plan, header(), here, may_ask=True)) == expected
    assert sampled(with_own_sampling(plan, header(), here, may_ask=False)) == expected
    assert len(hub.file_requests()) == asked


def test_the_header_comes_before_the_hub(hub: Hub, layout: Layout) -> None:
    hub.add(BASE, "generation_config.json", json.dumps(CONFIG).encode(), lfs=False)
    here = Installation(layout=layout, env=hub.env, known=LAPTOP)
    plan = resolve(recipe_for("owner/Model-GGUF", layout))
    stated = header(**{"general.sampling.temp": 0.25})
    assert sampled(with_own_sampling(plan, stated, here, may_ask=True)) == {"temp": (0.25, "GGUF general.sampling")}
    assert not hub.file_requests()


def test_a_hub_without_the_file_changes_nothing_and_is_not_asked_again(hub: Hub, layout: Layout) -> None:
    here = Installation(layout=layout, env=hub.env, known=LAPTOP)
    plan = resolve(recipe_for("owner/Model-GGUF", layout))
    assert with_own_sampling(plan, header(), here, may_ask=True) == plan
    hub.add(BASE, "generation_config.json", json.dumps(CONFIG).encode(), lfs=False)
    assert with_own_sampling(plan, header(), here, may_ask=True) == plan


def test_an_unreachable_hub_is_remarked_and_the_model_is_served_with_defaults(layout: Layout) -> None:
    notes: list[str] = []
    here = Installation(
        layout=layout, env={"HF_ENDPOINT": "http://127.0.0.1:9"}, known=LAPTOP, report=lambda s: notes.append(s.note)
    )
    plan = resolve(recipe_for("owner/Model-GGUF", layout))
    named = header(**{"general.base_model.0.repo_url": "http://127.0.0.1:9/owner/Model"})
    assert with_own_sampling(plan, named, here, may_ask=True) == plan
    assert any("to ask again" in note for note in notes)
