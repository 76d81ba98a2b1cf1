"""`serve --detach`: start a supervisor that survives this terminal, and wait until it is ready. Processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.cli.endpoint import Announcer, all_ready, lazy_models
from nemotron_ops.errors import ControlError, EngineError
from nemotron_ops.paths import Layout
from nemotron_ops.supervisor.control import client
from nemotron_ops.supervisor.snapshot import Snapshot, State, from_json

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.cli.compose import Composed

POLL_S = 0.1
TAIL_LINES = 20


def detach_serve(app: App, own: Sequence[str], extra: Sequence[str], composed: Composed, *, as_json: bool) -> None:
    """Run the same `serve` in a session of its own; return once it is ready.

    Raises EngineError, with the last lines of its log, if it ends or fails instead. What it runs was built and fetched
    by the caller already, so it does neither.
    """
    _refuse_second(app)
    log = app.layout.logs / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [w for w in own if w not in {"--detach", "--json"}]
    argv = [sys.executable, "-m", "nemotron_ops", "serve", *words, "--no-build", "--no-fetch"]
    for plan in composed.plans:  # which quant fits was decided here, with the network
        if plan.recipe.model.repo and plan.recipe.model.quant:
            argv += ["--quant", f"{plan.name}={plan.recipe.model.quant}"]
    argv += ["--", *extra] if extra else []
    with log.open("ab") as sink:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, cwd=app.here,
            env=dict(app.env),
        )  # fmt: skip
    announcer = Announcer(app, composed, as_json=as_json)
    wait_ready(app.layout, child, log, lazy=lazy_models(composed), on_snapshot=announcer.on_snapshot)
    app.ui.say(f"running in the background (pid {child.pid}); see `nemotron-ops status`, log in {log}")


def _refuse_second(app: App) -> None:
    try:
        status = client.request(app.layout, "status")
    except ControlError:
        return
    raise ControlError(
        f"cannot serve: a supervisor is running already (pid {status['pid']})", hint="`nemotron-ops stop` stops it"
    )


def wait_ready(
    layout: Layout, child: subprocess.Popen[bytes], log: Path, *, on_snapshot: Callable[[Snapshot], None],
    lazy: Collection[str] = (),
) -> None:  # fmt: skip
    """Wait until every instance of `child`, a supervisor, is ready; `on_snapshot` sees it coming.

    Models in `lazy` may also wait for their first request.

    Raises EngineError if `child` ends or an instance fails.
    """
    while True:
        if child.poll() is not None:
            raise EngineError(
                f"cannot serve: the supervisor ended with exit code {child.returncode}", log_tail=tail(log)
            )
        snapshot = _snapshot(layout)
        if snapshot is not None:
            on_snapshot(snapshot)
            failed = [i for i in snapshot.instances if i.state is State.FAILED]
            if failed:
                raise EngineError(
                    f"cannot serve {failed[0].name}: {failed[0].reason}",
                    hint=f"`nemotron-ops logs {failed[0].name}` shows its log; the supervisor runs on, `stop` ends it",
                )
            if all_ready(snapshot, lazy=lazy):
                return
        time.sleep(POLL_S)


def tail(log: Path) -> tuple[str, ...]:
    """The last lines of `log`, none if it is not there."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    except FileNotFoundError:
        return ()


def _snapshot(layout: Layout) -> Snapshot | None:
    try:
        return from_json(client.request(layout, "snapshot")["snapshot"])
    except ControlError:
        return None  # not listening yet
