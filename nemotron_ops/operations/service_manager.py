"""Tells the service manager, where there is one, what the supervisor does: state, progress, heartbeat. Socket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nemotron_ops.progress import Report, Step, silent
from nemotron_ops.service.notify import InstanceState, Notifier, under_service_manager, watchdog_period_s
from nemotron_ops.service.spec import Scope
from nemotron_ops.service.systemd import Manager
from nemotron_ops.supervisor.snapshot import Snapshot, State


@dataclass(frozen=True, kw_only=True)
class ServiceManagerHooks:
    """What the supervisor calls: with each snapshot, at each tick, when a load advances, before and after a reload.

    `on_proof` is the report of proving models, which comes before the supervisor. `socket_stays` tells whether the
    service manager keeps the listening socket.
    """

    on_snapshot: Callable[[Snapshot], None]
    on_tick: Callable[[], None] = lambda: None
    on_progress: Callable[[], None] = lambda: None
    on_reload: Callable[[bool], None] = lambda begins: None
    on_proof: Report = silent
    socket_stays: Callable[[], bool] = lambda: True


def service_manager_hooks(
    env: Mapping[str, str], on_snapshot: Callable[[Snapshot], None], *, lazy: Collection[str] = ()
) -> ServiceManagerHooks:
    """Hooks that call `on_snapshot` and notify the service manager. Models in `lazy` wait for their first request."""
    if not under_service_manager(env):
        return ServiceManagerHooks(on_snapshot=on_snapshot)
    notifier = Notifier(env)
    watched = watchdog_period_s(env, pid=os.getpid()) is not None

    begun: set[str] = set()

    def notify_snapshot(snapshot: Snapshot) -> None:
        begun.update(i.name for i in snapshot.instances if i.state is not State.STOPPED or i.model in lazy)
        if snapshot.stopping:
            notifier.stopping()
        else:
            notifier.instances(seen(snapshot, begun))
        on_snapshot(snapshot)

    def notify_reload(begins: bool) -> None:
        notifier.reloading(time.monotonic()) if begins else notifier.reloaded()

    def notify_proof(step: Step) -> None:
        share = f" {100 * (step.done or 0) / step.total:.0f} %" if step.total else ""
        notifier.progress(time.monotonic(), status=f"after a power cut: {step.what}{share}")

    manager = Manager(scope=Scope.SYSTEM if env.get("NEMOTRON_OPS_SYSTEM") else Scope.USER)
    return ServiceManagerHooks(
        on_snapshot=notify_snapshot,
        on_tick=notifier.alive if watched else lambda: None,
        on_progress=lambda: notifier.progress(time.monotonic()),
        on_reload=notify_reload,
        on_proof=notify_proof,
        socket_stays=manager.socket_stays,
    )


def seen(snapshot: Snapshot, begun: Collection[str]) -> list[InstanceState]:
    """The snapshot's instances in the service manager's terms; one that has not `begun` yet counts as starting."""
    return [
        InstanceState(
            name=i.name,
            state=(i.state if i.name in begun else State.STARTING).value,
            load_progress=i.load_progress,
            reason=i.reason,
        )
        for i in snapshot.instances
    ]
