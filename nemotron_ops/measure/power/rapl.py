"""Energy of processors and memory, from the kernel's RAPL counters (Intel and AMD). /sys.

Each package has a zone, and so has memory where it is not part of the package; the zones `core` and `uncore` are parts
of a package, and `psys` holds them all, so none of these is counted. Since Linux 5.10 only root may read the counters
(CVE-2020-8694).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
COUNTED = ("package", "dram")


@dataclass(kw_only=True)
class _Zone:
    """One counter, in microjoules; it starts again from 0 after `range_uj`."""

    name: str
    path: Path
    range_uj: int
    last_uj: int = 0
    used_uj: int = 0

    def read(self) -> int:
        return int((self.path / "energy_uj").read_text())

    def tick(self) -> None:
        now = self.read()
        self.used_uj += used(self.last_uj, now, self.range_uj)
        self.last_uj = now


class Rapl:
    """The counters of this machine. `energy.Source`."""

    period_s = 20.0  # a counter of 65 kJ wraps after a minute at 1 kW

    def __init__(self, zones: list[_Zone]) -> None:
        self._zones, self._lost = zones, False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(z.name for z in self._zones)

    def start(self) -> None:
        self._lost = False
        self._each(_restart)

    def tick(self) -> None:
        self._each(_Zone.tick)

    def joules(self) -> Mapping[str, float]:
        self.tick()
        return {} if self._lost else {z.name: z.used_uj / 1e6 for z in self._zones}

    def close(self) -> None:
        """Nothing is held."""

    def _each(self, do: Callable[[_Zone], None]) -> None:
        for zone in self._zones:
            try:
                do(zone)
            except (OSError, ValueError):
                self._lost = True


def used(before_uj: int, after_uj: int, range_uj: int) -> int:
    """What a counter counted between two reads that lie less than one turn apart."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj - before_uj + range_uj + 1


def open_rapl(powercap: Path = POWERCAP) -> Rapl | str:
    """The counters that can be read, or why there are none."""
    zones, problem = [], "RAPL: the kernel shows no counters of this processor"
    for path in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (path / "name").read_text().strip()
            zone = _Zone(name=_name(path, name), path=path, range_uj=int((path / "max_energy_range_uj").read_text()))
            if name.startswith(COUNTED):
                zone.read()
                zones.append(zone)
        except PermissionError:
            problem = f"RAPL: only root may read {path / 'energy_uj'}"
        except (OSError, ValueError):
            continue
    return Rapl(zones) if zones else problem


def _name(path: Path, name: str) -> str:
    """`package-1`; `dram-1` for the memory of package 1."""
    return name if name.startswith("package") else f"{name}-{path.name.split(':')[1]}"


def _restart(zone: _Zone) -> None:
    zone.last_uj, zone.used_uj = zone.read(), 0
