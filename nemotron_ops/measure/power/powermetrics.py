"""Power of a Mac's chip, from macOS's own program, which only root may run. Subprocess.

It prints a block each period, with milliwatts of processor, GPU and neural engine; the mean of the blocks times the
elapsed time is the energy. Memory is not among them.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO

PROGRAM = "/usr/bin/powermetrics"
PERIOD_MS = 250
POWER = re.compile(r"^(CPU|GPU|ANE) Power: (\d+) mW$", re.MULTILINE)
BLOCK = "*** Sampled system activity"
END_S = 5.0


class Powermetrics:
    """The program while it runs. `energy.Source`."""

    period_s = 60.0  # it samples by itself

    def __init__(self, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._program, self._clock = program, clock
        self._child: subprocess.Popen[str] | None = None
        self._output: IO[str] | None = None
        self._began = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return ("chip",)

    def start(self) -> None:
        self.close()
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives until `close`
        self._began = self._clock()
        argv = [self._program, "--samplers", "cpu_power,gpu_power", "-i", str(PERIOD_MS)]
        with suppress(OSError):
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.DEVNULL, text=True
            )

    def tick(self) -> None:
        """Nothing is to be read before the end."""

    def joules(self) -> Mapping[str, float]:
        elapsed_s = self._clock() - self._began
        self._end()
        if self._output is None:
            return {}
        self._output.seek(0)
        watts = mean_watts(self._output.read())
        return {} if watts is None else {"chip": watts * elapsed_s}

    def close(self) -> None:
        self._end()
        if self._output is not None:
            self._output.close()
            self._output = None

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None


def mean_watts(text: str) -> float | None:
    """The mean power over the blocks of an output; None where there is none. A block that is not whole is left out."""
    blocks = [dict(POWER.findall(block)) for block in text.split(BLOCK)[1:]]
    whole = [b for b in blocks if {"CPU", "GPU"} <= b.keys()]
    if not whole:
        return None
    return sum(float(v) for b in whole for v in b.values()) / 1000 / len(whole)


def open_powermetrics(*, system: str, uid: int, program: str = PROGRAM) -> Powermetrics | str:
    """The program of a Mac, or why it cannot be used."""
    if system != "Darwin":
        return ""
    return Powermetrics(program) if uid == 0 else "powermetrics: only root may run it"
