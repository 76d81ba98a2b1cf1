"""How `service install` turns its options into a spec, and what it refuses before any change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.cli.app import App
from nemotron_ops.cli.service_spec import Asked, asked_before, build_first, composed, with_absolute_keys
from nemotron_ops.errors import BuildError, GatewayError, UsageError
from nemotron_ops.service.commands import serve_argv
from nemotron_ops.service.place import installed_spec, place_for
from nemotron_ops.service.spec import SERVICE, Scope
from nemotron_ops.service.units import unit_files

pytestmark = pytest.mark.process
TINY = Asked(recipes=("tiny",))


@pytest.fixture
def app(home: Path) -> App:
    return App(env={"NEMOTRON_OPS_HOME": str(home), "HOME": str(home)})


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    return str(path)


def has_build(app: App, backend: str) -> None:
    build = app.layout.builds / "some-build"
    build.mkdir(parents=True)
    (build / "manifest.json").write_text(json.dumps({"plan": {"backend": backend, "source": {}}}))
    (app.layout.builds / "current.json").write_text(json.dumps({"current": build.name, "previous": []}))


def test_a_priority_given_as_a_word_for_serve_is_granted_like_the_recipes(app: App) -> None:
    assert composed(app, Scope.SYSTEM, TINY).prio == 0
    asked = replace(TINY, options=("--prio", "3"))
    spec = composed(app, Scope.SYSTEM, asked)
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
    app: App, options: tuple[str, ...], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        composed(app, Scope.USER, replace(TINY, options=options))


def test_beyond_this_machine_keys_are_asked_for_before_anything_is_installed(app: App, keys: str) -> None:
    lan = replace(TINY, host="0.0.0.0")
    with pytest.raises(GatewayError, match="anybody who reaches this address") as caught:
        composed(app, Scope.USER, lan)
    assert "--api-keys FILE" in (caught.value.hint or "")
    user = composed(app, Scope.USER, replace(lan, keys=keys))
    assert serve_argv(user)[-2:] == ("--api-key-file", keys)
    system = composed(app, Scope.SYSTEM, replace(lan, keys=keys))
    assert serve_argv(system)[-2:] == ("--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys")
    composed(app, Scope.USER, replace(lan, options=("--api-key-file", keys)))


def test_keys_that_are_not_there_are_missed_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        with_absolute_keys(replace(TINY, keys=str(tmp_path / "none")))


def test_a_user_service_cannot_be_narrowed_and_does_not_pretend_to_be(app: App, keys: str) -> None:
    asked = replace(TINY, host="0.0.0.0", keys=keys, allow_from=("10.0.0.0/8",))
    with pytest.raises(UsageError, match="cannot filter"):
        composed(app, Scope.USER, asked)
    assert composed(app, Scope.SYSTEM, asked).allow_from == ("10.0.0.0/8",)


def test_what_was_installed_is_what_an_upgrade_asks_for_again(app: App, keys: str) -> None:
    has_build(app, "vulkan")
    asked = replace(TINY, host="0.0.0.0", port=8100, keys=keys, options=("--prio", "2"), memory_max="8G")
    spec = composed(app, Scope.USER, asked)
    assert (spec.gpu, spec.gpu_asked) == ("vulkan", "auto")
    assert composed(app, Scope.USER, asked_before(spec)) == spec


def test_a_record_of_another_version_is_still_understood(app: App) -> None:
    place = place_for(Scope.USER, app.layout, env=app.env)
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
def test_the_build_is_looked_at_before_the_service_is_started(app: App, backend: str, gpu: str, why: str) -> None:
    if backend:
        has_build(app, backend)
    spec = composed(app, Scope.USER, replace(TINY, gpu=gpu))
    with pytest.raises(BuildError, match=f"cannot install the service: {why}"):
        build_first(app, spec, place_for(Scope.USER, app.layout, env=app.env), may_build=False)


@pytest.mark.parametrize(("backend", "gpu"), [("cpu", "auto"), ("cuda", "none"), ("cuda", "auto")])
def test_a_build_that_fits_is_left_alone(app: App, backend: str, gpu: str) -> None:
    has_build(app, backend)
    spec = composed(app, Scope.USER, replace(TINY, gpu=gpu))
    build_first(app, spec, place_for(Scope.USER, app.layout, env=app.env), may_build=False)
