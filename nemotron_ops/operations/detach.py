"""`serve --detach`: starts a supervisor in a session of its own and waits until it is ready. Processes, socket."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import ControlError, EngineError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.serving import all_ready, lazy_models
from nemotron_ops.operations.wish import Composed
from nemotron_ops.paths import Layout
from nemotron_ops.proc import SAFE_PATH, python_argv
from nemotron_ops.supervisor.control import client
from nemotron_ops.supervisor.snapshot import Snapshot, State, from_json

POLL_S = 0.1
TAIL_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Detached:
    """The supervisor in the background."""

    pid: int
    log: Path


def serve_detached(
    own: Sequence[str], extra: Sequence[str], composed: Composed, here: Installation, *,
    on_snapshot: Callable[[Snapshot], None],
) -> Detached:  # fmt: skip
    """Run `serve` with the words `own` and `extra` in a session of its own; return once it is ready.

    It neither builds nor fetches: the caller has composed the same already. Raises EngineError, with the last lines of
    its log, if it ends or fails instead.
    """
    _refuse_second(here.layout)
    log = here.layout.logs / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as sink:
        child = subprocess.Popen(
            serve_argv(own, extra, composed), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True, env={**here.env, **SAFE_PATH},
        )  # fmt: skip
    wait_ready(here.layout, child, log, since=before, lazy=lazy_models(composed), on_snapshot=on_snapshot)
    return Detached(pid=child.pid, log=log)


def serve_argv(own: Sequence[str], extra: Sequence[str], composed: Composed) -> list[str]:
    """The command line of the supervisor in the background, with the quants that were decided here."""
    words = [w for w in own if w not in {"--detach", "--json"}]
    argv = [*python_argv("nemotron_ops", "serve"), *words, "--no-build", "--no-fetch"]
    for plan in composed.plans:
        if plan.recipe.model.repo and plan.recipe.model.quant:
            argv += ["--decided", f"{plan.name}={plan.recipe.model.quant}"]
    return [*argv, "--", *extra] if extra else argv


def wait_ready(
    layout: Layout, child: subprocess.Popen[bytes], log: Path, *, on_snapshot: Callable[[Snapshot], None],
    lazy: Collection[str] = (), since: int = 0,
) -> None:  # fmt: skip
    """Wait until every instance of `child`, a supervisor, is ready; `on_snapshot` gets each snapshot until then.

    Models in `lazy` may also wait for their first request. An error shows `log` after its first `since` bytes.

    Raises EngineError if `child` ends or an instance fails.
    """
    while True:
        if child.poll() is not None:
            raise EngineError(
                f"cannot serve: the supervisor ended with exit code {child.returncode}", log_tail=tail(log, since=since)
            )
        snapshot = _snapshot(layout)
        if snapshot is not None:
            on_snapshot(snapshot)
            failed = [i for i in snapshot.instances if i.state is State.FAILED]
            if failed:
                raise EngineError(
                    f"cannot serve {failed[0].name}: {failed[0].reason}",
                    hint=f"`nemotron-ops logs {failed[0].name}` shows its log; `stop` ends the running supervisor",
                )
            if all_ready(snapshot, lazy=lazy):
                return
        time.sleep(POLL_S)


def tail(log: Path, *, since: int = 0) -> tuple[str, ...]:
    """The last lines of `log` after its first `since` bytes, none if it does not exist."""
    try:
        with log.open("rb") as f:
            f.seek(since)
            return tuple(f.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
    except FileNotFoundError:
        return ()


def _refuse_second(layout: Layout) -> None:
    try:
        status = client.request(layout, "status")
    except ControlError:
        return
    raise ControlError(
        f"cannot serve: a supervisor is running already (pid {status['pid']})", hint="`nemotron-ops stop` stops it"
    )


def _snapshot(layout: Layout) -> Snapshot | None:
    try:
        return from_json(client.request(layout, "snapshot")["snapshot"])
    except ControlError:
        return None  # not listening yet
