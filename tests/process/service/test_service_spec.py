"""How `service install` turns its options into a spec, and what it refuses before any change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.cli.app import App
from nemotron_ops.cli.serve_words import serve_flags
from nemotron_ops.errors import BuildError, GatewayError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.service import (
    ServiceRequest,
    build_first,
    request_again,
    service_spec,
    with_absolute_keys,
)
from nemotron_ops.service.commands import serve_argv
from nemotron_ops.service.place import installed_spec, place_for
from nemotron_ops.service.spec import SERVICE, Scope, ServiceSpec
from nemotron_ops.service.units import unit_files

pytestmark = pytest.mark.process
TINY = ServiceRequest(recipes=("tiny",))


@pytest.fixture
def here(home: Path) -> Installation:
    return App(env={"NEMOTRON_OPS_HOME": str(home), "HOME": str(home)}).installation


def spec_for(here: Installation, scope: Scope, request: ServiceRequest) -> ServiceSpec:
    """The spec as `service install` makes it."""
    return service_spec(request, scope, here, serve_flags=serve_flags(request.recipes, request.options))


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    return str(path)


def has_build(here: Installation, backend: str) -> None:
    build = here.layout.builds / "some-build"
    build.mkdir(parents=True)
    (build / "manifest.json").write_text(json.dumps({"plan": {"backend": backend, "source": {}}}))
    (here.layout.builds / "current.json").write_text(json.dumps({"current": build.name, "previous": []}))


def test_a_priority_given_as_a_word_for_serve_is_granted_like_the_recipes(here: Installation) -> None:
    assert spec_for(here, Scope.SYSTEM, TINY).prio == 0
    asked = replace(TINY, options=("--prio", "3"))
    spec = spec_for(here, Scope.SYSTEM, asked)
    assert spec.prio == 3
    assert "LimitRTPRIO=90" in unit_files(spec)[SERVICE]
    assert "--prio 3" in unit_files(spec)[SERVICE]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--port", "9000"), "the service decides that"),
        (("--host", "0.0.0.0"), "the service decides that"),
        (("--profile", "chat"), "the service decides that"),
        (("--detach",), "the service decides that"),
        (("--no-such-flag",), "No such option"),
        (("--prio", "9"), "not in the range"),
        (("30b",), "would be taken for a recipe"),
    ],
)
def test_a_word_that_serve_would_refuse_or_that_is_the_services_own_is_refused_at_once(
    here: Installation, options: tuple[str, ...], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        spec_for(here, Scope.USER, replace(TINY, options=options))


def test_beyond_this_machine_keys_are_asked_for_before_anything_is_installed(here: Installation, keys: str) -> None:
    lan = replace(TINY, host="0.0.0.0")
    with pytest.raises(GatewayError, match="anybody who reaches this address") as caught:
        spec_for(here, Scope.USER, lan)
    assert "--api-keys FILE" in (caught.value.hint or "")
    user = spec_for(here, Scope.USER, replace(lan, keys=keys))
    assert serve_argv(user)[-2:] == ("--api-key-file", keys)
    system = spec_for(here, Scope.SYSTEM, replace(lan, keys=keys))
    assert serve_argv(system)[-2:] == ("--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys")
    spec_for(here, Scope.USER, replace(lan, options=("--api-key-file", keys)))


def test_keys_that_are_not_there_are_missed_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        with_absolute_keys(replace(TINY, keys=str(tmp_path / "none")))


def test_a_user_service_cannot_be_narrowed_and_does_not_pretend_to_be(here: Installation, keys: str) -> None:
    asked = replace(TINY, host="0.0.0.0", keys=keys, allow_from=("10.0.0.0/8",))
    with pytest.raises(UsageError, match="cannot filter"):
        spec_for(here, Scope.USER, asked)
    assert spec_for(here, Scope.SYSTEM, asked).allow_from == ("10.0.0.0/8",)


def test_what_was_installed_is_what_an_upgrade_asks_for_again(here: Installation, keys: str) -> None:
    has_build(here, "vulkan")
    asked = replace(TINY, host="0.0.0.0", port=8100, keys=keys, options=("--prio", "2"), memory_max="8G")
    spec = spec_for(here, Scope.USER, asked)
    assert (spec.gpu, spec.gpu_asked) == ("vulkan", "auto")
    assert spec_for(here, Scope.USER, request_again(spec)) == spec


def test_a_record_of_another_version_is_still_understood(here: Installation) -> None:
    place = place_for(Scope.USER, here.layout, env=here.env)
    place.record.parent.mkdir(parents=True)
    value = {"scope": "user", "program": "/p", "recipes": ["tiny"], "options": [], "allow_from": [], "of_tomorrow": 1}
    place.record.write_text(json.dumps({"spec": value}))
    spec = installed_spec(place)
    assert spec
    assert (spec.recipes, spec.gpu_asked, spec.key_file) == (("tiny",), "auto", "")


@pytest.mark.parametrize(
    ("backend", "gpu", "why"),
    [
        ("", "none", "there is no build of llama.cpp"),
        ("cpu", "cuda", "the current build is for cpu, not for cuda"),
    ],
)
def test_the_build_is_looked_at_before_the_service_is_started(
    here: Installation, backend: str, gpu: str, why: str
) -> None:
    if backend:
        has_build(here, backend)
    spec = spec_for(here, Scope.USER, replace(TINY, gpu=gpu))
    with pytest.raises(BuildError, match=f"cannot install the service: {why}"):
        build_first(spec, place_for(Scope.USER, here.layout, env=here.env), here, may_build=False)


@pytest.mark.parametrize(("backend", "gpu"), [("cpu", "auto"), ("cuda", "none"), ("cuda", "auto")])
def test_a_build_that_fits_is_left_alone(here: Installation, backend: str, gpu: str) -> None:
    has_build(here, backend)
    spec = spec_for(here, Scope.USER, replace(TINY, gpu=gpu))
    build_first(spec, place_for(Scope.USER, here.layout, env=here.env), here, may_build=False)
