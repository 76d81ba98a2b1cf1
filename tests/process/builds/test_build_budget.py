"""The shared budget of jobs: real ninjas, a real job server, and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops import host
from nemotron_ops.builds.compile import budget
from nemotron_ops.host import Tool

pytestmark = pytest.mark.process

JOBS = 3
# Each step notes itself, and waits until it is let go on: then as many are there at once as may be.
STEP = """rule wait
  command = touch $running/$out; while [ ! -e $gate ]; do sleep 0.02; done; rm $running/$out; touch $out
"""


@pytest.fixture
def ninja() -> Tool:
    tool = host.probe(os.environ).tools["ninja"]
    assert budget.understands(tool)
    return tool


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "running").mkdir()
    return tmp_path


def steps(room: Path, name: str) -> Path:
    """A build of eight steps that do not depend on each other."""
    folder = room / name
    folder.mkdir()
    head = f"running = {room / 'running'}\ngate = {room / 'gate'}\n"
    text = "".join(f"build {name}{i}: wait\n" for i in range(8))
    (folder / "build.ninja").write_text(head + STEP + text)
    return folder


def started(ninja: Tool, folder: Path, share: budget.Share) -> subprocess.Popen[bytes]:
    argv = [ninja.path, "-C", str(folder)]
    env = {**os.environ, "MAKEFLAGS": share.makeflags}
    return subprocess.Popen(argv, env=env, pass_fds=[share.lock], stdout=subprocess.DEVNULL)


def running(room: Path) -> int:
    return len(list((room / "running").iterdir()))


def left(room: Path) -> int:
    """Jobs left in the budget."""
    fd = os.open(room / "jobs/fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        found = os.read(fd, 100)
        os.write(fd, found)
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)
    return len(found)


def test_a_build_alone_has_the_whole_budget_and_a_second_one_a_job_of_its_own(
    room: Path, ninja: Tool, eventually: Callable[..., None]
) -> None:
    with budget.shared(room / "jobs", JOBS) as first, budget.shared(room / "jobs", JOBS) as second:
        assert first
        assert second
        builds = [started(ninja, steps(room, "a"), first)]
        eventually(lambda: running(room) == JOBS and left(room) == 0)
        builds.append(started(ninja, steps(room, "b"), second))
        eventually(lambda: running(room) == JOBS + 1)
        (room / "gate").touch()
        assert [b.wait(60) for b in builds] == [0, 0]
        assert left(room) == JOBS - 1  # all jobs were returned


def test_jobs_that_a_killed_build_had_are_there_for_the_next(
    room: Path, ninja: Tool, eventually: Callable[..., None]
) -> None:
    with budget.shared(room / "jobs", JOBS) as share:
        assert share
        build = started(ninja, steps(room, "a"), share)
        eventually(lambda: running(room) == JOBS)
        build.kill()
        build.wait()
        assert left(room) == 0
        (room / "gate").touch()  # its steps, which outlive it, end

    def whole() -> bool:
        with budget.shared(room / "jobs", JOBS):
            return left(room) == JOBS - 1

    eventually(whole)


TAKE_PART = """
import os, sys, time
from pathlib import Path
from nemotron_ops.builds.compile import budget
with budget.shared(Path(sys.argv[1]), int(sys.argv[2])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_takes_no_part_any_more(room: Path) -> None:
    argv = [sys.executable, "-c", TAKE_PART, str(room / "jobs"), "7"]
    other = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert other.stdout is not None
    assert other.stdout.readline() == b"in\n"
    with budget.shared(room / "jobs", JOBS):
        assert left(room) == 6  # the first participant sets the size
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with budget.shared(room / "jobs", JOBS):
        assert left(room) == JOBS - 1


def test_what_a_build_leaves_running_takes_no_part_any_more(room: Path) -> None:
    with budget.shared(room / "jobs", JOBS) as share:
        assert share
        server = subprocess.Popen(
            ["sleep", "60"], pass_fds=[share.lock]
        )  # like a compiler cache's server that a step has started
    try:
        with budget.shared(room / "jobs", JOBS):
            assert left(room) == JOBS - 1
    finally:
        server.kill()
        server.wait()


def test_where_there_can_be_no_pipe_there_is_no_budget(room: Path) -> None:
    (room / "jobs/fifo").mkdir(parents=True)  # a folder in its place cannot be removed
    with budget.shared(room / "jobs", JOBS) as share:
        assert share is None


def test_one_job_is_everybodys_own(room: Path) -> None:
    with budget.shared(room / "jobs", 1):
        assert left(room) == 0


def test_an_older_ninja_is_given_a_number_instead() -> None:
    assert not budget.understands(Tool(path="/usr/bin/ninja", version=(1, 11, 1)))
    assert not budget.understands(Tool(path="/usr/bin/ninja"))
