"""A compiler cache across builds: the same file must look the same in each of them."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops import host
from nemotron_ops.build import compiling
from nemotron_ops.build.compiling import Workplace
from nemotron_ops.build.plan import plan
from nemotron_ops.build.spec import Backend, BuildOptions
from nemotron_ops.host import Tool
from nemotron_ops.progress import silent
from tests.pure.test_build_store import SOURCE

pytestmark = pytest.mark.process

ENV = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
CMAKE = """
cmake_minimum_required(VERSION 3.14)
project("llama.cpp" C)
include_directories(${CMAKE_SOURCE_DIR}/include)
add_executable(llama-cli ${CMAKE_SOURCE_DIR}/tools/cli.c)
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
        "include/llama.h": "#define ANSWER 0\n",
        "tools/cli.c": '#include "llama.h"\nint main(void) { return ANSWER; }\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def compiled_with(cache: Path, place: Path, source: Path) -> None:
    """Configure and compile `source` below `place`, with `cache` in front of the compiler."""
    facts = replace(host.probe(ENV), gpus=())
    facts = replace(facts, tools={**facts.tools, "ccache": Tool(path=str(cache), version=(4, 7))})
    planned = plan(BuildOptions(backend=Backend.CPU, jobs=1), facts=facts, source=SOURCE, toolchains=place, env=ENV)
    lock = os.open(cache, os.O_RDONLY)
    try:
        workplace = Workplace(
            source=source, folder=place / "work", log=place / "log", steps=place / "steps.json", budget=place / "jobs",
            cmake=facts.tools["cmake"], ninja=facts.tools["ninja"], lock=lock,
        )  # fmt: skip
        compiling.configure(planned, workplace, silent)
        compiling.compile_targets(replace(planned, targets=("llama-cli",)), workplace, silent)
    finally:
        os.close(lock)
    assert (place / "work/bin/llama-cli").exists() or (place / "work/llama-cli").exists()


def test_a_file_has_the_same_name_in_every_build_so_that_a_cache_knows_it(tmp_path: Path) -> None:
    ledger, cache = tmp_path / "ledger", tmp_path / "ccache"
    cache.write_text(CACHE.format(ledger=str(ledger)))
    cache.chmod(stat.S_IRWXU)
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


def test_a_source_that_lay_elsewhere_before_is_taken_from_where_it_is_now(tmp_path: Path) -> None:
    cache = tmp_path / "ccache"
    cache.write_text(CACHE.format(ledger=str(tmp_path / "ledger")))
    cache.chmod(stat.S_IRWXU)
    compiled_with(cache, tmp_path, tree(tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "second")
    compiled_with(cache, tmp_path, tmp_path / "second")
    assert (tmp_path / "work/source").resolve() == tmp_path / "second"
