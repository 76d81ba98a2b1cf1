"""The joules of this machine while a load runs: all its GPUs, processors and memory that tell. Threads, NVML, /sys.

What else the machine does in the meantime is counted, too, and so is the load generator.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from nemotron_ops.installation import Installation
from nemotron_ops.measure.power.energy import Energy, Source
from nemotron_ops.measure.power.nvml import open_nvml
from nemotron_ops.measure.power.powermetrics import open_powermetrics
from nemotron_ops.measure.power.rapl import open_rapl

REMOTE = "the endpoint is on another machine"


class Meter:
    """Counts the energy of one load after another: `start`, then `stop`."""

    def __init__(self, sources: Sequence[Source] = (), names: Sequence[str] = (), missing: Sequence[str] = ()) -> None:
        self.names, self.missing = tuple(names), tuple(missing)
        self._sources = tuple(sources)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = 0.0

    @property
    def about(self) -> dict[str, Any]:
        """What is counted, or why nothing is: kept with the numbers."""
        return {"measured": list(self.names)} if self.names else {"not measured": list(self.missing)}

    def start(self) -> None:
        if not self._sources:
            return
        self._ended.clear()
        self._began = time.monotonic()
        for source in self._sources:
            source.start()
        self._thread = threading.Thread(target=self._tick, args=(min(s.period_s for s in self._sources),), daemon=True)
        self._thread.start()

    def stop(self) -> Energy | None:
        """The energy since `start`; None where nothing is measured, or a part stopped telling."""
        if self._thread is None:
            return None
        self._ended.set()
        self._thread.join()
        self._thread = None
        elapsed_s = time.monotonic() - self._began
        found = [s.joules() for s in self._sources]
        if not all(found):
            return None
        return Energy(joules={part: j for parts in found for part, j in parts.items()}, elapsed_s=elapsed_s)

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def _tick(self, period_s: float) -> None:
        while not self._ended.wait(period_s):
            for source in self._sources:
                source.tick()


def meter_of(here: Installation, stack: ExitStack, *, remote: bool) -> Meter:
    """A meter for an endpoint of this machine, closed with `stack`; one that measures nothing for a `remote` one."""
    if remote:
        return Meter(missing=(REMOTE,))
    opened = (open_nvml(), open_rapl(), open_powermetrics(system=here.machine.system, uid=os.getuid()))
    sources = [s for s in opened if not isinstance(s, str)]
    names = [name for s in sources for name in s.names]
    meter = Meter(sources, names, [s for s in opened if isinstance(s, str) and s])
    stack.callback(meter.close)
    return meter
