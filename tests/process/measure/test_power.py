"""Sources of energy: NVIDIA's library compiled from a fake, a Mac's program as a script, read while a load runs."""

from __future__ import annotations

import ctypes
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nemotron_ops.measure.power.meter import Meter
from nemotron_ops.measure.power.nvml import Nvml, open_nvml
from nemotron_ops.measure.power.powermetrics import Powermetrics, open_powermetrics

pytestmark = pytest.mark.process
FAKE = Path(__file__).parents[2] / "fakes/nvml.c"
BLOCK = "*** Sampled system activity (now) (250ms elapsed) ***\\n\\nCPU Power: 1500 mW\\nGPU Power: 500 mW\\n"


@pytest.fixture
def nvml(tmp_path: Path) -> Callable[..., str]:
    """A fake NVML library, compiled by the machine's C compiler."""

    def made(*flags: str, init: int = 0) -> str:
        library = tmp_path / f"libnvidia-ml{len(list(tmp_path.iterdir()))}.so"
        subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", *flags, "-o", library, FAKE], check=True)
        return str(library)

    return made


def test_gpus_tell_counted_energy_or_power(nvml: Callable[..., str]) -> None:
    library = nvml()
    lib = ctypes.CDLL(library)
    counter = ctypes.c_ulonglong.in_dll(lib, "energy_mj")
    power = ctypes.c_uint.in_dll(lib, "power_mw")
    counter.value, power.value = 10_000, 40_000
    found = open_nvml(library)
    assert isinstance(found, Nvml)
    assert found.names == ("gpu1", "gpu2")  # 0 is cut into slices, 3 has fallen off the bus
    found.start()
    began = time.monotonic()
    counter.value += 2_500
    time.sleep(0.02)
    power.value = 60_000
    joules = found.joules()
    assert joules["gpu1"] == 2.5
    assert 0 < joules["gpu2"] <= 50 * (time.monotonic() - began)  # the mean of 40 W and 60 W
    ctypes.c_int.in_dll(lib, "lost").value = 1
    assert found.joules() == {}
    found.close()
    assert ctypes.c_int.in_dll(lib, "alive").value == 0


def test_why_no_gpu_is_measured_is_told(nvml: Callable[..., str]) -> None:
    assert open_nvml("/none") == "NVML: there is no NVIDIA driver"
    assert open_nvml(nvml(init=9)) == "NVML: NVIDIA's driver does not answer"
    assert open_nvml(nvml("-DOLD")) == "NVML: NVIDIA's driver is too old"


def powermetrics(folder: Path) -> str:
    """A program that prints blocks until it is ended."""
    program = folder / "powermetrics"
    program.write_text(f"#!/bin/sh\nwhile :; do printf '{BLOCK}'; touch {folder}/printed; sleep 0.05; done\n")
    program.chmod(0o755)
    return str(program)


def test_a_mac_is_measured_by_its_program(tmp_path: Path, eventually: Callable[..., None]) -> None:
    found = open_powermetrics(system="Darwin", uid=0, program=powermetrics(tmp_path))
    assert isinstance(found, Powermetrics)
    with closing(Meter([found], found.names)) as meter:
        meter.start()
        eventually((tmp_path / "printed").exists)
        energy = meter.stop()
    assert energy is not None
    assert energy.total > 0
    assert "only root" in str(open_powermetrics(system="Darwin", uid=501))
    assert open_powermetrics(system="Linux", uid=0) == ""


def test_the_energy_is_the_mean_power_times_the_time(tmp_path: Path, eventually: Callable[..., None]) -> None:
    times = iter((100.0, 110.0))
    with closing(Powermetrics(powermetrics(tmp_path), clock=lambda: next(times))) as found:
        found.start()
        eventually((tmp_path / "printed").exists)
        assert found.joules() == {"chip": pytest.approx(20.0)}


def test_a_program_that_does_not_start_measures_nothing(tmp_path: Path) -> None:
    meter = Meter([Powermetrics(str(tmp_path / "none"))], ("chip",))
    meter.start()
    assert meter.stop() is None
    meter.close()


class Counting:
    """A source that counts how it is used; its thread is another one."""

    period_s = 0.01

    def __init__(self) -> None:
        self.ticks = 0

    def start(self) -> None:
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1

    def joules(self) -> dict[str, float]:
        return {"part": float(self.ticks)}

    def close(self) -> None:
        self.ticks = -1


def test_sources_are_read_while_a_load_runs_and_not_between(eventually: Callable[..., None]) -> None:
    source = Counting()
    meter = Meter([source], ("part",))
    meter.start()
    eventually(lambda: source.ticks >= 2)
    energy = meter.stop()
    assert energy is not None
    assert energy.total == source.ticks
    assert meter.stop() is None  # nothing runs
    assert Meter(missing=("no GPU",)).about == {"not measured": ["no GPU"]}
