"""Times a sandbox beside a bare interpreter: cold start, and a warm call (`make bench-sandbox`). Processes.

Medians. Ratios are what counts: the bare interpreter is started in between, so that load on the machine meets both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial

from nemotron_ops.paths import user_layout
from nemotron_ops.sandbox import interpreter
from nemotron_ops.sandbox.limits import Limits
from nemotron_ops.sandbox.open import Room

ROUNDS = 15
CALLS = 200


def took_ms(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    python = interpreter.present().python
    with tempfile.TemporaryDirectory() as home:
        room = Room(layout=user_layout({"NEMOTRON_OPS_HOME": home}, uid=os.getuid()), env=os.environ)
        print(
            f"{'backend':18} {'cold ms':>8} {'bare ms':>8} {'warm ms':>8}   medians of {ROUNDS} starts, {CALLS} calls"
        )
        for tried in room.tried(every=True):
            if not tried.works:
                print(f"{tried.candidate.backend:18} {tried.reason}")
                continue
            cold, bare = [], []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                session = room.open_on(tried.candidate, Limits())
                session.run("python", "print(1)")
                cold.append((time.perf_counter() - started) * 1000)
                session.end()
                bare.append(took_ms(lambda: subprocess.run([python, "-I", "-c", "print(1)"], capture_output=True)))
            session = room.open_on(tried.candidate, Limits())
            session.run("python", "x = 0")
            warm = [took_ms(partial(session.run, "python", "x += 1")) for _ in range(CALLS)]
            session.end()
            middle = [statistics.median(values) for values in (cold, bare, warm)]
            print(f"{tried.candidate.backend:18} {middle[0]:8.1f} {middle[1]:8.1f} {middle[2]:8.2f}")


if __name__ == "__main__":
    main()
