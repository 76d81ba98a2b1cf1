"""A build's flags are asked from its llama-server once, and again when that is another file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import EngineError
from nemotron_ops.operations.build_flags import known_flags
from nemotron_ops.paths import Layout
from tests.fakes.build_store import put

pytestmark = pytest.mark.process


@pytest.fixture
def build(layout: Layout) -> Build:
    return put(layout, "cpu-1")


def answers(build: Build, flag: str, *, code: int = 0) -> None:
    """Make the build's llama-server print `flag` in its help, and count how often it is asked."""
    program = build.binary("llama-server")
    program.write_text(f"#!/bin/sh\necho x >> {_asked(build)}\necho '{flag} N    meaning'\nexit {code}\n")
    program.chmod(0o755)


def _asked(build: Build) -> Path:
    return build.path / "asked"


def test_the_flags_of_a_build_are_asked_once(build: Build, layout: Layout) -> None:
    answers(build, "--ctx-size")
    assert known_flags(build, layout) == known_flags(build, layout)
    assert known_flags(build, layout).spellings == ("--ctx-size",)
    assert _asked(build).read_text() == "x\n"


def test_another_llama_server_of_the_same_name_is_asked_again(build: Build, layout: Layout) -> None:
    answers(build, "--ctx-size")
    known_flags(build, layout)
    answers(build, "--context")
    assert known_flags(build, layout).spellings == ("--context",)
    assert len(list((layout.cache / "flags").iterdir())) == 1


def test_an_empty_answer_or_a_full_disk_only_costs_the_next_question(build: Build, layout: Layout) -> None:
    answers(build, "--ctx-size")
    known_flags(build, layout)
    (kept,) = (layout.cache / "flags").iterdir()
    kept.write_text("")
    assert known_flags(build, layout).spellings == ("--ctx-size",)
    (layout.cache / "flags").rename(layout.cache / "elsewhere")
    (layout.cache / "flags").write_text("a file in the folder's place")
    assert known_flags(build, layout).spellings == ("--ctx-size",)


def test_a_server_that_cannot_run_is_named_and_nothing_is_kept(build: Build, layout: Layout) -> None:
    answers(build, "--ctx-size", code=127)
    with pytest.raises(EngineError, match="llama-server --help ended with 127"):
        known_flags(build, layout)
    assert not (layout.cache / "flags").exists()
