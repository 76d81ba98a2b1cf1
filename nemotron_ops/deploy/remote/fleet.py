"""Many targets: the first one alone, then the rest, some at a time; Ctrl-C ends all of them at once. Threads."""

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
    """How it went on one target."""

    target: str
    release: str
    result: str  # "deployed", "rolled back", "already there", "failed", "not tried"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is to be done on one target, to which release."""

    connection: Connection
    release: str
    act: Callable[[Report], Outcome]


def first_then_rest(
    turns: Sequence[Turn], *, parallel: int, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """Do the first; if it went well, the others, `parallel` at a time. No turn begins after a failure.

    On Ctrl-C no turn begins either, and those under way lose their connections: what runs over there ends its step.
    """
    errors: list[NemotronOpsError] = []
    stop = threading.Event()

    def told(step: Step) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # in a thread of the pool, which Ctrl-C itself does not reach
        report(step)

    def one(turn: Turn) -> Outcome:
        target, release = turn.connection.target, turn.release
        if errors or stop.is_set():
            return Outcome(target=target, release=release, result="not tried")
        try:
            return turn.act(told)
        except NemotronOpsError as exc:
            errors.append(exc)
            return Outcome(target=target, release=release, result="failed", reason=exc.message)

    outcomes = [one(turn) for turn in turns[:1]]
    pool = ThreadPoolExecutor(max_workers=max(1, parallel))
    try:
        outcomes += pool.map(one, turns[1:])
    except BaseException:
        stop.set()
        for turn in turns:
            turn.connection.cut()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(outcomes), tuple(errors)
