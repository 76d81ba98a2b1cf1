"""A compiler cache across builds: an unchanged file must have equal cache keys in all of them."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops import host
from nemotron_ops.builds.compile import compiling
from nemotron_ops.builds.compile.compiling import Workplace
from nemotron_ops.builds.plan import BuildPlan, plan
from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.errors import BuildError
from nemotron_ops.host import Tool
from nemotron_ops.progress import silent
from tests.fakes.build_store import SOURCE

pytestmark = pytest.mark.process

ENV = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
CMAKE = """
cmake_minimum_required(VERSION 3.14)
project("llama.cpp" C)
add_subdirectory(tools)
"""
TOOLS = """
include_directories(${CMAKE_SOURCE_DIR}/include)
add_executable(llama-cli ${CMAKE_SOURCE_DIR}/tools/cli.c)
set_target_properties(llama-cli PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
"""
CACHE = """#!/usr/bin/env python3
import json, os, sys
with open({ledger!r}, "a") as f:
    f.write(json.dumps([os.environ["CCACHE_BASEDIR"], sys.argv[1:]]) + "\\n")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def tree(folder: Path) -> Path:
    for name, text in {
        "CMakeLists.txt": CMAKE,
        "tools/CMakeLists.txt": TOOLS,
        "include/llama.h": "#define ANSWER 0\n",
        "tools/cli.c": '#include "llama.h"\nint main(void) { return ANSWER; }\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A fake compiler cache that stores nothing and records its calls."""
    made = tmp_path / "ccache"
    made.write_text(CACHE.format(ledger=str(tmp_path / "ledger")))
    made.chmod(stat.S_IRWXU)
    return made


@contextmanager
def workplace(cache: Path, place: Path, source: Path, *, name: str = "ccache") -> Iterator[tuple[BuildPlan, Workplace]]:
    """A plan for `source` and its workplace below `place`, with `cache` as compiler launcher."""
    facts = replace(host.probe(ENV), gpus=())
    tools = {key: tool for key, tool in facts.tools.items() if key not in ("ccache", "sccache")}
    facts = replace(facts, tools={**tools, name: Tool(path=str(cache), version=(4, 7))})
    planned = plan(BuildOptions(backend=Backend.CPU, jobs=1), facts=facts, source=SOURCE, toolchains=place, env=ENV)
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT)
    try:
        yield replace(planned, targets=("llama-cli",)), Workplace(
            source=source, folder=place / "work", log=place / "log", steps=place / "steps.json", budget=place / "jobs",
            cmake=facts.tools["cmake"], ninja=facts.tools["ninja"], lock=lock,
        )  # fmt: skip
    finally:
        os.close(lock)


def compiled_with(cache: Path, place: Path, source: Path) -> None:
    """Configure and compile `source` below `place`, with `cache` as compiler launcher."""
    with workplace(cache, place, source) as (planned, here):
        compiling.configure(planned, here, silent)
        compiling.compile_targets(planned, here, silent)
    assert (place / "work/bin/llama-cli").exists()


def test_a_file_has_the_same_name_in_every_build_so_that_a_cache_knows_it(cache: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    for release in ("one", "two"):
        place = tmp_path / "builds" / release
        place.mkdir(parents=True)
        compiled_with(cache, place, tree(tmp_path / "sources" / release))
    calls = [json.loads(line) for line in ledger.read_text().splitlines()]
    seen = [[word.replace(base, "") for word in words] for base, words in calls if any("cli.c" in w for w in words)]
    assert {base for base, _ in calls} == {str(tmp_path / "builds" / r / "work") for r in ("one", "two")}
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert any(word.endswith("/source/tools/cli.c") for word in seen[0])
    assert not any("one" in word or "sources" in word for word in seen[0])


def test_a_source_that_lay_elsewhere_before_is_taken_from_where_it_is_now(cache: Path, tmp_path: Path) -> None:
    compiled_with(cache, tmp_path, tree(tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "second")
    compiled_with(cache, tmp_path, tmp_path / "second")
    assert (tmp_path / "work/source").resolve() == tmp_path / "second"


def compilations(tmp_path: Path) -> int:
    return (tmp_path / "ledger").read_text().count("tools/cli.c")


def test_a_configure_that_cannot_succeed_costs_nothing_that_was_compiled(cache: Path, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    compiled_with(cache, tmp_path, source)
    (source / "CMakeLists.txt").write_text(CMAKE + 'message(FATAL_ERROR "no compiler today")\n')
    with pytest.raises(BuildError, match="cannot configure"):
        compiled_with(cache, tmp_path, source)
    (source / "CMakeLists.txt").write_text(CMAKE)
    compiled_with(cache, tmp_path, source)
    assert compilations(tmp_path) == 1


def test_a_cmake_that_its_own_memory_stops_starts_afresh_and_compiles_nothing_again(
    cache: Path, tmp_path: Path
) -> None:
    source = tree(tmp_path / "source")
    compiled_with(cache, tmp_path, source)
    text = (tmp_path / "work/CMakeCache.txt").read_text()
    elsewhere = text.replace("CMAKE_HOME_DIRECTORY:INTERNAL=", "CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere")
    (tmp_path / "work/CMakeCache.txt").write_text(elsewhere)
    compiled_with(cache, tmp_path, source)
    assert compilations(tmp_path) == 1


def test_what_comes_out_of_a_cache_does_not_count_as_what_compiling_takes(cache: Path, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    output = "tools/CMakeFiles/llama-cli.dir/cli.c.o"
    (tmp_path / "steps.json").write_text(json.dumps({output: 100.0}))
    compiled_with(cache, tmp_path, source)
    assert json.loads((tmp_path / "steps.json").read_text())[output] == 100.0


def test_a_step_that_took_a_little_less_is_recorded() -> None:
    past = {"a.o": 10.0, "b.o": 10.0, "c.cu.o": 50.0}
    assert compiling.compiled_seconds({"a.o": 4.0, "b.o": 0.02, "c.cu.o": 5.0, "d.o": 0.1}, past) == {
        "a.o": 4.0,
        "d.o": 0.1,
    }


SCCACHE = """#!/bin/sh
if [ "$1" = --start-server ]; then
  [ -e {pid} ] || {{ sleep 600 > /dev/null 2>&1 & echo $! > {pid}; }}
  exit 0
fi
"$0" --start-server
exec "$@"
"""


def test_the_server_of_a_compiler_cache_holds_no_lock_of_ours(tmp_path: Path) -> None:
    pid, cache = tmp_path / "pid", tmp_path / "sccache"
    cache.write_text(SCCACHE.format(pid=pid))
    cache.chmod(stat.S_IRWXU)
    try:
        with workplace(cache, tmp_path, tree(tmp_path / "source"), name="sccache") as (planned, here):
            compiling.configure(planned, here, silent)
            compiling.compile_targets(planned, here, silent)
        held = {os.readlink(fd) for fd in Path(f"/proc/{pid.read_text().strip()}/fd").iterdir()}
        assert not {str(tmp_path / "lock"), str(tmp_path / "jobs/lock")} & held
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
