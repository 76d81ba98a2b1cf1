"""The lifecycle table as a picture and as a page, for the documentation. Pure."""

from __future__ import annotations

from collections import defaultdict

from nemotron_ops.supervisor.instance.state import FORKS, TABLE, Fork, Row
from nemotron_ops.supervisor.snapshot import State

MEANINGS: dict[State, str] = {
    State.STOPPED: "no process: none is wanted, or it waits for memory",
    State.STARTING: "the process runs and loads; any sign of progress extends its deadline",
    State.READY: "it answers through its task queue and may take traffic",
    State.STOPPING: "the stop recipe: drain, cut, SIGTERM, second SIGTERM",
    State.KILLING: "SIGKILL to its process group, repeated until it has ended",
    State.BACKOFF: "it died and is started again after a pause",
    State.FAILED: "it died too often, or of a cause that a restart cannot cure; stays so until `start` or `restart`",
}


def mermaid() -> str:
    """All transitions as a mermaid state diagram; one line for all events between two states."""
    moves: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (state, event), row in TABLE.items():
        for target in targets(row):
            if target is not state:
                moves[str(state), str(target)].append(str(event))
    lines = [f"    {a} --> {b}: {', '.join(sorted(events))}" for (a, b), events in moves.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> stopped", *lines])


def targets(row: Row) -> tuple[State, ...]:
    return FORKS[row.to] if isinstance(row.to, Fork) else (row.to,)


def page() -> str:
    """The reference page of the lifecycle."""
    meanings = "\n".join(f"| `{state}` | {MEANINGS[state]} |" for state in State)
    rows = "\n".join(
        f"| `{state}` | {event} | {_to(row)} | {', '.join(row.actions) or '-'} | {_wanted(row)} |"
        for (state, event), row in TABLE.items()
    )
    return (
        "# Lifecycle of an instance\n\n"
        f"| state | meaning |\n| --- | --- |\n{meanings}\n\n"
        f"```mermaid\n{mermaid()}\n```\n\n"
        "## The table\n\nAn event that a state does not list changes nothing.\n\n"
        f"| state | event | next | does | wanted |\n| --- | --- | --- | --- | --- |\n{rows}\n"
    )


def _to(row: Row) -> str:
    if isinstance(row.to, Fork):
        return f"{row.to}: {', '.join(f'`{s}`' for s in FORKS[row.to])}"
    return f"`{row.to}`"


def _wanted(row: Row) -> str:
    return {None: "", True: "yes", False: "no"}[row.wanted]
