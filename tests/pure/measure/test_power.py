"""Energy: what counters counted, what powermetrics printed, what both mean for a load."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.measure.power.energy import Energy, figures, together
from nemotron_ops.measure.power.powermetrics import mean_watts
from nemotron_ops.measure.power.rapl import Rapl, open_rapl, used
from nemotron_ops.measure.stream import Sample
from nemotron_ops.measure.summary import summarise

# as `powermetrics --samplers cpu_power,gpu_power -i 250` prints it; the last block was cut off
POWERMETRICS = """\
Machine model: Mac14,6
OS version: 23A344

*** Sampled system activity (Wed Nov  1 10:00:00 2023 +0100) (251.33ms elapsed) ***

**** Processor usage ****

E-Cluster Online: 100%
E-Cluster HW active frequency: 1023 MHz
CPU 0 frequency: 1012 MHz
CPU Power: 4000 mW
GPU Power: 15500 mW
ANE Power: 0 mW
Combined Power (CPU + GPU + ANE): 19500 mW

**** GPU usage ****

GPU HW active frequency: 1398 MHz
GPU Power: 15500 mW

*** Sampled system activity (Wed Nov  1 10:00:00 2023 +0100) (250.10ms elapsed) ***

CPU Power: 6000 mW
GPU Power: 14500 mW
ANE Power: 500 mW

*** Sampled system activity (Wed Nov  1 10:00:01 2023 +0100) (249.90ms elapsed) ***

CPU Power: 90
"""


def test_powermetrics_blocks_are_read_once_each_and_only_whole_ones() -> None:
    assert mean_watts(POWERMETRICS) == pytest.approx((19.5 + 21.0) / 2)
    assert mean_watts("") is None
    assert mean_watts(POWERMETRICS[: POWERMETRICS.index("GPU Power")]) is None


def test_a_counter_that_starts_again_is_read_on() -> None:
    assert used(100, 350, 999) == 250
    assert used(990, 10, 999) == 20
    assert used(5, 5, 999) == 0


# two packages as Linux 6.1 shows them; `core` is a part of a package, `psys` holds everything
ZONES = {
    "intel-rapl:0": ("package-0", 1_000_000),
    "intel-rapl:0:0": ("core", 400_000),
    "intel-rapl:0:1": ("dram", 50_000),
    "intel-rapl:1": ("package-1", 262_143_000_000),
    "intel-rapl:1:0": ("dram", 60_000),
    "intel-rapl:2": ("psys", 9_000_000),
}
RANGE_UJ = 262_143_328_850


def machine(powercap: Path) -> Path:
    for zone, (name, energy_uj) in ZONES.items():
        (powercap / zone).mkdir(parents=True)
        (powercap / zone / "name").write_text(f"{name}\n")
        (powercap / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        count(powercap, zone, energy_uj)
    return powercap


def count(powercap: Path, zone: str, energy_uj: int) -> None:
    (powercap / zone / "energy_uj").write_text(f"{energy_uj}\n")


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    found = open_rapl(machine(tmp_path))
    assert isinstance(found, Rapl)
    assert found.names == ("package-0", "dram-0", "package-1", "dram-1")
    found.start()
    count(tmp_path, "intel-rapl:0", 31_000_000)
    count(tmp_path, "intel-rapl:0:1", 2_050_000)
    count(tmp_path, "intel-rapl:1", 5_000_000)  # it started again
    count(tmp_path, "intel-rapl:2", 99_000_000)
    joules = found.joules()
    assert joules["package-0"] == pytest.approx(30)
    assert joules["dram-0"] == pytest.approx(2)
    assert joules["package-1"] == pytest.approx(5.328851)
    assert joules["dram-1"] == 0
    found.start()
    assert sum(found.joules().values()) == 0


def test_counters_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    assert "no counters" in str(open_rapl(tmp_path))
    found = open_rapl(machine(tmp_path))
    assert isinstance(found, Rapl)
    found.start()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert found.joules() == {}


def test_energy_becomes_watts_and_tokens_per_joule() -> None:
    sample = Sample(at_s=0, ttft_s=0.1, ended_s=1.0, gaps_s=(0.1,) * 9, tokens=10)
    energy = Energy(joules={"gpu0": 150.0, "package-0": 50.0}, elapsed_s=2.0)
    found = summarise([sample, sample], 2.0, energy=energy)
    assert (found["watts"], found["tokens_per_joule"]) == (100.0, 0.1)
    assert found["joules"] == {"gpu0": 150.0, "package-0": 50.0}
    assert "watts" not in summarise([sample], 1.0)
    assert figures(Energy(joules={"gpu0": 0.0}, elapsed_s=1.0), 10) == {}


def test_repeats_are_one_only_where_all_were_measured() -> None:
    one = Energy(joules={"gpu0": 1.0}, elapsed_s=1.0)
    both = together([one, Energy(joules={"gpu0": 2.0, "dram-0": 1.0}, elapsed_s=3.0)])
    assert both == Energy(joules={"gpu0": 3.0, "dram-0": 1.0}, elapsed_s=4.0)
    assert together([one, None]) is None
    assert together([]) is None
