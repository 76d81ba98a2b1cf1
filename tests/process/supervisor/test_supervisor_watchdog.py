"""The heartbeat to the service manager: it goes on while all tasks come round, and stops with any of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.supervisor import Stage, staged

pytestmark = pytest.mark.process
PLANNED = {"CUDA0": 1 << 30}
QUICK_TIMING = {"beat_s": 0.5, "tick_s": 0.1, "silence_s": 3.0}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def test_the_heart_beats_while_all_is_well_also_where_nothing_happens(stage: Stage) -> None:
    beats = stage.folder / "beats"
    stage.settings |= {"beats": str(beats), "timing": QUICK_TIMING}
    stage.configure(stage.fake("a-0"))
    stage.up()
    stage.ready("a-0")
    seen = beats.stat().st_size
    stage.until(lambda: beats.stat().st_size >= seen + 40)  # for 4 s, which is longer than `silence_s`
    assert stage.events("stuck") == []


def test_a_task_that_hangs_stops_the_heart_although_the_loop_turns(stage: Stage) -> None:
    """The driver hangs when the fleet reads the free memory: the file is a pipe without a writer."""
    free, beats = stage.folder / "free", stage.folder / "beats"
    os.mkfifo(free)
    stage.settings |= {"beats": str(beats), "timing": QUICK_TIMING, "free_file": str(free)}
    stage.configure(stage.fake("a-0", memory_bytes=PLANNED), stage.fake("b-0", memory_bytes=PLANNED))
    stage.up()
    pid = stage.ready("a-0", "b-0")["a-0"]
    stage.ask("stop", names=["a-0"])
    stage.until(lambda: stage.one("a-0")["state"] == "stopped")
    stage.ask("start", names=["a-0"])  # from here on the fleet hangs
    stage.until(lambda: stage.events("stuck"))
    assert "fleet" in stage.events("stuck")[0]["message"]
    seen = beats.stat().st_size
    stage.until(lambda: stage.ask("status"))  # the event loop runs
    assert beats.stat().st_size == seen
    assert stage.process
    stage.process.send_signal(signal.SIGABRT)  # as the watchdog of systemd does
    stage.process.wait()
    free.unlink()
    free.write_text('{"CUDA0": 10000000000}')
    stage.up()
    assert stage.ready("a-0", "b-0")["a-0"] != pid


def test_an_engine_that_lost_its_gpu_does_not_come_up_on_the_cpu(stage: Stage) -> None:
    warning = "warning: no usable GPU found, --gpu-layers option will be ignored"
    stage.configure(
        stage.fake("a-0", "--say", warning, memory_bytes=PLANNED), stage.fake("b-0", "--say", warning)
    )  # b-0 was planned for the CPU
    stage.up()
    stage.ready("b-0")
    stage.until(lambda: stage.one("a-0")["state"] == "failed")
    assert stage.one("a-0")["reason"].startswith("llama-server sees no GPU, but its memory was planned on CUDA0")
    assert [e for e in stage.events("ready") if e["instance"] == "a-0"] == []
