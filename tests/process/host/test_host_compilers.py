"""Compilers named by CC and CXX: paths with spaces work, missing and broken ones are named. Under a second."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nemotron_ops import host
from nemotron_ops.host.look import named

pytestmark = pytest.mark.process


def compilers(folder: Path) -> dict[str, str]:
    """CC and CXX in a folder with a space in its name."""
    folder.mkdir()
    for name in ("gcc", "g++"):
        real = shutil.which(name)
        assert real
        (folder / name).symlink_to(real)
    return {**os.environ, "CC": str(folder / "gcc"), "CXX": str(folder / "g++")}


def test_a_compiler_whose_path_has_a_space_is_found(tmp_path: Path) -> None:
    env = compilers(tmp_path / "my tools")
    facts = host.probe(env)
    assert (facts.tools["cc"].path, facts.tools["cxx"].path) == (env["CC"], env["CXX"])
    assert facts.compiler_problem == ""
    quoted = host.probe({**env, "CC": f'ccache "{env["CC"]}" -pipe'})
    assert quoted.tools["cc"].path == env["CC"]


@pytest.mark.parametrize("value", ["ccache g++-13 -pipe", "g++-13", " g++-13  -O2", "'g++-13"])
def test_the_compiler_is_the_word_that_is_no_cache_and_no_flag(value: str) -> None:
    assert named(value).strip("'") == "g++-13"


def test_a_variable_that_names_a_missing_compiler_is_the_cause(tmp_path: Path) -> None:
    env = {**compilers(tmp_path / "tools"), "CC": "x86_64-conda-linux-gnu-cc"}
    problem = host.probe(env).compiler_problem
    assert problem == "CC=x86_64-conda-linux-gnu-cc names a program that is not there: x86_64-conda-linux-gnu-cc"


def test_a_compiler_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libisl.so.23' >&2\nexit 127\n")
    broken.chmod(0o755)
    problem = host.probe({**os.environ, "CXX": str(broken)}).compiler_problem
    assert problem == f"CXX={broken}: {broken} does not start: error while loading shared libraries: libisl.so.23"
