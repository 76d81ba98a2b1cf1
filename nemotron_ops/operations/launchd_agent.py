"""Installs, starts and stops the launchd agent of this user, the service on a Mac. Disk, launchctl, socket."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import ControlError, ServiceError
from nemotron_ops.files import write_atomic, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.proc import Finished, run
from nemotron_ops.service import launchd
from nemotron_ops.supervisor.control import client

if TYPE_CHECKING:
    from nemotron_ops.service.place import Place
    from nemotron_ops.service.spec import ServiceSpec

POLL_S = 0.5


class Agent:
    """The launchd agent of the current user."""

    def __init__(self, here: Installation) -> None:
        self.layout, self.uid, self.home = here.layout, os.getuid(), Path(here.env["HOME"])
        self.path = launchd.agent_path(self.home)

    @property
    def installed(self) -> bool:
        return self.path.exists()

    def plist(self, spec: ServiceSpec) -> str:
        return launchd.agent(spec, home=self.home).decode()

    def install(self, spec: ServiceSpec, place: Place, *, start: bool, ready_s: float) -> bool:
        """Bring the agent to `spec`; returns whether anything changed, once it is ready.

        An agent that is up to date only has its program restarted, which keeps the models.
        """
        content = self.plist(spec)
        changed = not self.installed or self.path.read_text() != content
        if changed:
            write_atomic(self.path, content)
        write_json(place.record, {"spec": asdict(spec)})
        if not start:
            return changed
        if changed:
            run(launchd.unload_argv(self.uid))
            self._run_or_fail(launchd.load_argv(self.uid, self.path))
        elif not run(launchd.status_argv(self.uid)).ok:
            self._run_or_fail(launchd.load_argv(self.uid, self.path))
        self.wait_ready(ready_s)
        return changed

    def restart(self, *, reload_models: bool, ready_s: float) -> None:
        """Restart the program; with `reload_models`, the models too."""
        self._check_installed()
        before = self.pid()
        if reload_models:
            self._run_or_fail(launchd.unload_argv(self.uid))
            self._run_or_fail(launchd.load_argv(self.uid, self.path))
        elif before:
            self._run_or_fail(launchd.hand_over_argv(self.uid))
        else:
            self._run_or_fail(launchd.load_argv(self.uid, self.path))
        self.wait_ready(ready_s, other_than=before)

    def stop(self) -> None:
        self._check_installed()
        run(launchd.unload_argv(self.uid))

    def status(self) -> dict[str, Any]:
        """The state according to launchd and the supervisor."""
        loaded = run(launchd.status_argv(self.uid))
        status = self._supervisor()
        return {
            "installed": self.installed, "loaded": loaded.ok, "pid": launchd.running_pid(loaded.stdout),
            "up": bool(status and status["ready"]), "log": str(launchd.log_path(self.home)),
        }  # fmt: skip

    def logs_argv(self, *, follow: bool, lines: int) -> tuple[str, ...]:
        return launchd.logs_argv(self.home, follow=follow, lines=lines)

    def uninstall(self) -> tuple[str, ...]:
        """Unload the agent and remove it; returns what was removed. The caller removes the folders."""
        if not self.installed:
            return ()
        run(launchd.unload_argv(self.uid))
        self.path.unlink()
        return (str(self.path),)

    def pid(self) -> int:
        return launchd.running_pid(run(launchd.status_argv(self.uid)).stdout)

    def wait_ready(self, within_s: float, *, other_than: int = 0) -> None:
        """Wait until the supervisor (not process `other_than`) has everything wanted ready. Raises ServiceError."""
        deadline = time.monotonic() + within_s
        while True:
            status = self._supervisor()
            if status and status["pid"] != other_than:
                if status["ready"]:
                    return
                if status["failed"]:
                    reasons = "; ".join(i["reason"] for i in status["instances"] if i["reason"])
                    raise ServiceError(f"cannot start the service: {reasons or 'every model has failed'}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"cannot start the service: not ready after {within_s:.0f} s", hint="nemotron-ops service logs"
                )
            time.sleep(POLL_S)

    def _supervisor(self) -> dict[str, Any] | None:
        try:
            return client.request(self.layout, "status")
        except ControlError:
            return None

    def _check_installed(self) -> None:
        if not self.installed:
            raise ServiceError("cannot find the service: none is installed", hint="nemotron-ops service install RECIPE")

    def _run_or_fail(self, argv: tuple[str, ...]) -> Finished:
        done = run(argv)
        if not done.ok:
            raise ServiceError(f"cannot run {' '.join(argv[:2])}: {done.stderr.strip() or f'exit {done.returncode}'}")
        return done
