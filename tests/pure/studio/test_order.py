"""What follows from the supervisor's status: the order of a comparison, and where parameters come from."""

from __future__ import annotations

from typing import Any

import pytest

from nemotron_ops.studio.neighbours.order import Order, order
from nemotron_ops.studio.neighbours.parameters import Wished, asked_model, parameters, wished

GIB = 1 << 30


def status(*instances: tuple[str, str, int], capacity: int = 10, pinned: str = "") -> dict[str, Any]:
    """A status with (model, state, GiB) instances on one device of `capacity` GiB."""
    models = dict.fromkeys(model for model, _, _ in instances)
    return {
        "models": [{"name": m, "names": [f"org/{m}", m], "adapters": [], "on_demand": True} for m in models],
        "capacity_bytes": {"CUDA0": capacity * GIB},
        "instances": [
            {"model": m, "state": state, "planned_bytes": {"CUDA0": size * GIB}, "pinned": m == pinned}
            for m, state, size in instances
        ],
    }


def test_models_that_fit_side_by_side_are_asked_at_once() -> None:
    found = status(("a", "ready", 4), ("b", "stopped", 6))
    assert order(["org/a", "b:tools"], found) == Order(together=True, panes=(0, 1))


def test_models_that_do_not_fit_are_asked_in_turn_the_loaded_one_first() -> None:
    found = status(("a", "stopped", 6), ("b", "ready", 6))
    assert order(["a", "org/b"], found) == Order(together=False, panes=(1, 0), short=("CUDA0",))


def test_panes_of_one_model_follow_each_other_so_that_each_is_loaded_once() -> None:
    found = status(("a", "stopped", 6), ("b", "stopped", 6))
    assert order(["a", "b", "a:tools", "b"], found).panes == (0, 2, 1, 3)


def test_what_is_pinned_keeps_its_memory_and_what_is_idle_gives_it() -> None:
    instances = (("a", "ready", 4), ("b", "stopped", 4), ("c", "ready", 4))
    assert order(["a", "b"], status(*instances)).together
    assert not order(["a", "b"], status(*instances, pinned="c")).together


def test_one_model_in_all_panes_and_names_that_nobody_knows_are_asked_at_once() -> None:
    assert order(["a", "a:tools"], status(("a", "ready", 9))).together
    assert order(["x", "y"], status(("a", "ready", 9))).together
    assert order([], {}).together


CARD = {"id": "org/a", "aliases": ["a", "gpt-4"], "profiles": ["a:chat", "a:tools"], "adapters": ["a:mine"]}
TINY = {"id": "org/t", "aliases": ["t"], "profiles": ["t:chat"]}


@pytest.mark.parametrize(
    ("model", "thinking", "expected"),
    [
        ("a", False, "a:tools"),
        ("org/a", False, "a:tools"),
        ("gpt-4", False, "a:tools"),
        ("a", True, "a"),
        ("a", None, "a"),
        ("a:chat", False, "a:chat"),  # chosen by hand
        ("a:mine", False, "a:mine"),
        ("t", False, "t"),  # has no such profile
        ("", False, ""),  # the default of two models is the gateway's choice
    ],
)
def test_the_thinking_switch_changes_the_profile_unless_one_was_chosen(
    model: str, thinking: bool | None, expected: str
) -> None:
    assert asked_model(model, thinking, [CARD, TINY]) == expected


def test_the_only_model_needs_no_name_for_its_profile() -> None:
    assert asked_model("", False, [CARD, {**CARD, "id": "gpt-4"}]) == "a:tools"
    assert asked_model("", False, []) == ""


def test_each_value_comes_with_its_source() -> None:
    resolved = {
        "temp": {"value": 0.6, "source": "profile tools"},
        "top_k": {"value": None, "source": ""},
        "ctx_size": {"value": 4096, "source": "built in"},
    }
    started = Wished(flags={"top_p": 0.5}, defaults={"max_tokens": 100})
    assert parameters(resolved, started) == {
        "temperature": {"value": 0.6, "source": "profile tools"},
        "top_p": {"value": 0.5, "source": "--top-p"},
        "max_tokens": {"value": 100, "source": "[requests]"},
    }


def test_what_a_model_was_started_as() -> None:
    found = status(("a", "ready", 1), ("b", "ready", 1))
    found["models"][0]["adapters"] = ["mine"]
    found["wish"] = [
        {"name": "a", "target": "a", "profile": "guide", "flags": {"temp": 0.1}},
        {"name": "b", "target": "owner/b", "profile": None, "flags": {}},
    ]
    assert wished("org/a", found) == Wished(target="a", profile="guide", flags={"temp": 0.1})
    assert wished("a:tools", found) == Wished(target="a", profile="tools", flags={"temp": 0.1})
    assert wished("a:mine", found) == Wished(target="a", profile="guide", flags={"temp": 0.1})
    assert wished("b", found) == Wished(target="owner/b")
    assert wished("never heard of", found) == Wished(target="never heard of")
