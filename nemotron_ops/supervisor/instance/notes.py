"""Writes the change of an instance's state into the journal. Journal."""

from __future__ import annotations

from nemotron_ops.supervisor.instance.state import Event, Message, Status
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.snapshot import State


def note_change(
    journal: Journal, instance: str, before: Status, after: Status, what: Message, *, pid: int, now: float
) -> None:
    state, reason = after.state, after.reason or what.reason
    shown_pid = f"pid {pid}" if pid else ""
    match state:
        case State.FAILED:
            journal.add("failed", reason, instance=instance, level="error")
        case State.BACKOFF if not what.counts:
            journal.add("not-started", reason, instance=instance, level="warning")
        case State.BACKOFF:
            text = f"{reason}; next try in {(after.deadline or 0.0) - now:.1f} s"
            journal.add("died", text, instance=instance, level="warning")
        case State.STOPPING if after.fault:
            journal.add("stuck", after.fault, instance=instance, level="warning")
        case State.KILLING:
            journal.add("killing", "it did not end on SIGTERM", instance=instance, level="warning")
        case State.READY:
            how = "adopted" if what.event is Event.ADOPTED_READY else "ready"
            took = f"after {now - before.since:.1f} s" if how == "ready" else ""
            journal.add(how, " ".join(p for p in (shown_pid, took) if p), instance=instance)
        case _:
            asked = before.state in (State.STOPPING, State.KILLING)
            journal.add(str(state), shown_pid if asked or pid else reason, instance=instance)
