"""Runs one task for each target: the first alone, then the rest, some at a time; Ctrl-C ends all. Threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.progress import Report, Step


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome on one target."""

    target: str
    release: str
    result: str  # "deployed", "rolled back", "already there", "failed", "not tried"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class TargetTask:
    """A deploy or rollback of one target to a release."""

    connection: Connection
    release: str
    act: Callable[[Report], Outcome]


def first_then_rest(
    tasks: Sequence[TargetTask], *, parallel: int, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """Run the first task; if it succeeds, the others, `parallel` at a time. No task starts after a failure.

    On Ctrl-C no task starts either, and running ones lose their connections: the targets finish the current step.
    """
    errors: list[NemotronOpsError] = []
    stop = threading.Event()

    def forward(step: Step) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # Ctrl-C itself does not reach the threads of the pool
        report(step)

    def run(task: TargetTask) -> Outcome:
        target, release = task.connection.target, task.release
        if errors or stop.is_set():
            return Outcome(target=target, release=release, result="not tried")
        try:
            return task.act(forward)
        except NemotronOpsError as exc:
            errors.append(exc)
            return Outcome(target=target, release=release, result="failed", reason=exc.message)

    outcomes = [run(task) for task in tasks[:1]]
    pool = ThreadPoolExecutor(max_workers=max(1, parallel))
    try:
        outcomes += pool.map(run, tasks[1:])
    except BaseException:
        stop.set()
        for task in tasks:
            task.connection.cut()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(outcomes), tuple(errors)
