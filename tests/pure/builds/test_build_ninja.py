"""ninja's output: progress, estimates, and the relevant lines of failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.builds.compile.ninja import (
    Estimate,
    Tick,
    cmake_warnings,
    failure_lines,
    out_of_memory,
    parse_log,
    parse_tick,
)


@pytest.mark.parametrize(
    ("line", "tick"),
    [
        ("[12/230] Building CXX object src/x.cpp.o", Tick(done=12, total=230, output="src/x.cpp.o")),
        ("[230/230] Linking CXX executable bin/llama-server", Tick(done=230, total=230, output="bin/llama-server")),
        ("[3/9] Linking CXX static library common/libcommon.a", Tick(done=3, total=9, output="common/libcommon.a")),
        ("ninja: no work to do.", None),
        ("x.cpp:3:1: error: no", None),
    ],
)
def test_lines_of_progress_are_understood(line: str, tick: Tick | None) -> None:
    assert parse_tick(line) == tick


LOG = "# ninja log v7\n0\t4000\t1\ta.o\th\n0\t500\t1\tb.o\th\n4000\t34000\t1\tbig.o\th\nbroken line\n"


def test_the_log_says_what_each_step_took() -> None:
    assert parse_log(LOG) == {"a.o": 4.0, "b.o": 0.5, "big.o": 30.0}


def test_an_estimate_counts_seconds_not_steps() -> None:
    estimate = Estimate(outputs=["a.o", "b.o", "big.o"], seconds=parse_log(LOG), jobs=1)
    assert estimate.left_s(0.0) == 34.5
    estimate.finish("a.o")
    estimate.finish("b.o")
    assert estimate.left_s(4.5) == pytest.approx(30.0)  # two of three steps done, with most of the time remaining


def test_an_estimate_follows_a_machine_that_is_slower_than_the_record() -> None:
    seconds = {f"{i}.o": 1.0 for i in range(100)}
    estimate = Estimate(outputs=list(seconds), seconds=seconds, jobs=4)
    assert estimate.left_s(0.0) == 25.0
    for i in range(50):
        estimate.finish(f"{i}.o")
    assert estimate.left_s(100.0) == pytest.approx(100.0)


def test_steps_that_nobody_recorded_count_as_the_usual_ones() -> None:
    seconds = {"a.cpp.o": 4.0, "b.cu.o": 40.0, "bin/x": 0.5}
    estimate = Estimate(outputs=["new.cpp.o", "new.cu.o", "bin/new"], seconds=seconds, jobs=1)
    assert estimate.left_s(0.0) == 44.5


def test_nothing_to_do_takes_no_time() -> None:
    assert Estimate(outputs=[], seconds={}, jobs=2).left_s(0.0) == 0.0


@given(st.lists(st.floats(0.01, 60), min_size=1, max_size=60), st.integers(1, 64), st.floats(0.1, 5000))
def test_an_estimate_is_never_negative_and_ends_at_zero(times: list[float], jobs: int, elapsed: float) -> None:
    seconds = {str(i): t for i, t in enumerate(times)}
    estimate = Estimate(outputs=list(seconds), seconds=seconds, jobs=jobs)
    for output in seconds:
        assert estimate.left_s(elapsed) >= 0
        estimate.finish(output)
    assert estimate.left_s(elapsed) == 0


FAILED = """[1/3] Building CXX object a.o
[2/3] Building CXX object b.o
FAILED: [code=1] b.o
/usr/bin/c++ -O3 -c b.cpp
b.cpp: In function 'int main()':
b.cpp:3:5: error: 'x' was not declared in this scope
b.cpp:4:5: warning: unused
[3/3] Building CXX object c.o
ninja: build stopped: subcommand failed.""".splitlines()


def test_a_failure_shows_the_compilers_own_errors() -> None:
    assert failure_lines(FAILED) == ("FAILED: [code=1] b.o", "b.cpp:3:5: error: 'x' was not declared in this scope")


def test_a_failed_configure_shows_cmakes_error() -> None:
    lines = ["-- looking", "CMake Error at CMakeLists.txt:5 (message):", "  no CUDA", "-- Configuring incomplete"]
    assert failure_lines(lines)[0].startswith("CMake Error at CMakeLists.txt:5")


def test_a_failure_without_a_known_form_shows_the_last_lines() -> None:
    assert failure_lines(["a", "b", "c"], most=2) == ("b", "c")


def test_a_compiler_killed_for_memory_is_told_apart() -> None:
    assert out_of_memory(["c++: fatal error: Killed signal terminated program cc1plus"])
    assert not out_of_memory(FAILED)


def test_options_that_this_source_does_not_know_are_found() -> None:
    text = (
        "CMake Warning:\n  Manually-specified variables were not used by the project:\n\n"
        "    LLAMA_CURL\n    GGML_NEW\n\n\n-- Build files have been written to: /w\n"
    )
    assert cmake_warnings(text) == ("LLAMA_CURL", "GGML_NEW")
    assert cmake_warnings("-- fine\n") == ()
