"""Runs systemctl, journalctl and loginctl. Subprocess.

A `Manager` is the systemd of one scope; it queries and commands, and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import ServiceError
from nemotron_ops.proc import Finished, run
from nemotron_ops.progress import Report, Step
from nemotron_ops.service.spec import SERVICE, SOCKET, Scope

PROPERTIES = "ActiveState,SubState,StatusText,NRestarts,Result,MainPID,InvocationID,ExecMainStatus,UnitFileState,Job"
POLL_S = 0.2
NO_SYSTEMD = (
    "a server that was started by hand or by another process supervisor is reached by `nemotron-ops status`, `stop`, "
    "`reload` and `logs`"
)


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """A unit's properties in systemd. `active` is "active", "activating", "failed", "inactive" …"""

    active: str
    sub: str
    text: str = ""
    restarts: int = 0
    result: str = ""
    pid: int = 0
    invocation: str = ""
    exit_status: int = 0
    enabled: str = ""
    job: int = 0  # id of a queued start or stop

    @property
    def up(self) -> bool:
        return self.active in ("active", "reloading")

    @property
    def gave_up(self) -> bool:
        """Down, with no job queued: between a crash and its restart a unit is inactive for a moment, with a job."""
        return self.active in ("failed", "inactive") and not self.job


@dataclass(frozen=True, kw_only=True)
class Manager:
    """The systemd of this machine (SYSTEM) or of this user (USER)."""

    scope: Scope

    def ctl(self, *words: str, timeout_s: float | None = 60.0) -> Finished:
        """`systemctl [--user] WORDS`; nothing is raised."""
        return run(("systemctl", *self._flag, *words), timeout_s=timeout_s)

    def must(self, *words: str, timeout_s: float | None = 60.0) -> str:
        """Like `ctl`, but raises ServiceError if it fails."""
        done = self.ctl(*words, timeout_s=timeout_s)
        if not done.ok:
            raise ServiceError(
                f"cannot run systemctl {' '.join(words)}: {done.stderr.strip() or f'exit {done.returncode}'}"
            )
        return done.stdout

    def check(self) -> None:
        """Raise ServiceError if systemd does not run here, or this session cannot reach it."""
        if not booted():
            raise ServiceError("cannot query the service: systemd does not run this machine", hint=NO_SYSTEMD)
        done = self.ctl("show", "--property=Version")
        if not done.ok:
            cure = "log in as this user (sudo and su open no session), or `loginctl enable-linger`"
            raise ServiceError(
                f"cannot query the service: {done.stderr.strip() or 'systemctl failed'}",
                hint=cure if self.scope is Scope.USER else None,
            )

    def status(self, unit: str = SERVICE) -> UnitStatus:
        return parse_status(self.ctl("show", "--property", PROPERTIES, unit).stdout)

    def socket_stays(self) -> bool:
        """Whether the socket still listens after the service ends: not if its own stop is queued or done.

        True also if it cannot be known: then the socket belongs to another unit.
        """
        output = self.ctl("show", "--property", f"LoadState,{PROPERTIES}", SOCKET, timeout_s=5).stdout
        now = parse_status(output)
        return "LoadState=loaded" not in output or (now.up and not now.job)

    def journal(self, *, unit: str = SERVICE, lines: int = 30, invocation: str = "") -> tuple[str, ...]:
        """The last lines of a unit's journal, limited to one run if `invocation` is given."""
        which = (f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}") if invocation else ()
        if invocation and self.scope is Scope.USER:
            which = (*which, "+", f"USER_INVOCATION_ID={invocation}")
        words = ("--no-pager", "--output=cat", f"--lines={lines}")
        named: tuple[str, ...] = () if which else ("--user-unit" if self._flag else "--unit", unit)
        done = run(("journalctl", *words, *named, *which), timeout_s=20)
        return tuple(line for line in done.stdout.splitlines() if line.strip())

    def follow_argv(self, *, unit: str = SERVICE, follow: bool, lines: int, as_json: bool = False) -> tuple[str, ...]:
        """The command that prints a unit's journal."""
        named = "--user-unit" if self._flag else "--unit"
        more = (*(("--follow",) if follow else ()), *(("--output=json",) if as_json else ()))
        return ("journalctl", "--no-pager", f"--lines={lines}", named, unit, *more)

    def wait_up(self, *, report: Report, timeout_s: float, after_restarts: int = -1) -> UnitStatus:
        """Wait until the service is up; the unit's own timeouts decide when a start has failed.

        `after_restarts` is a number of restarts that the unit must exceed first. Raises ServiceError with the journal's
        last lines if systemd gives up, or after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        shown = ""
        while True:
            now = self.status()
            if now.up and now.restarts > after_restarts:
                return now
            if now.text != shown:
                shown = now.text
                report(Step(what="start", note=f"{SERVICE}: {now.text}"))
            if now.gave_up:
                self._fail(now, "systemd gave up")
            if time.monotonic() > deadline:
                self._fail(now, f"not ready after {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _fail(self, now: UnitStatus, why: str) -> None:
        words = f"{why} (state {now.active}/{now.sub}, result {now.result}, exit status {now.exit_status})"
        tail = self.journal(lines=25, invocation=now.invocation) or self.journal(lines=25)
        raise ServiceError(
            f"cannot start {SERVICE}: {words}", log_tail=tail, hint="see the log: nemotron-ops service logs"
        )

    @property
    def _flag(self) -> tuple[str, ...]:
        return ("--user",) if self.scope is Scope.USER else ()


def parse_status(text: str) -> UnitStatus:
    """The output of `systemctl show`."""
    value = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def number(key: str) -> int:
        return int(value[key]) if value.get(key, "").lstrip("-").isdigit() else 0

    return UnitStatus(
        active=value.get("ActiveState", "unknown"),
        sub=value.get("SubState", ""),
        text=value.get("StatusText", ""),
        restarts=number("NRestarts"),
        result=value.get("Result", ""),
        pid=number("MainPID"),
        invocation=value.get("InvocationID", ""),
        exit_status=number("ExecMainStatus"),
        enabled=value.get("UnitFileState", ""),
        job=number("Job"),
    )


def linger(user: str, *, on: bool) -> Finished:
    """Set whether `user`'s services run without a login."""
    return run(("loginctl", "enable-linger" if on else "disable-linger", user), timeout_s=30)


def lingers(user: str) -> bool:
    return Path("/var/lib/systemd/linger", user).exists()


def booted() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def sysusers(conf: Path) -> None:
    """Create the users and groups of `conf`. Raises ServiceError."""
    done = run(("systemd-sysusers", str(conf)), timeout_s=60)
    if not done.ok:
        raise ServiceError(f"cannot create the service's user: {done.stderr.strip()}")


def verify(paths: Sequence[Path], *, scope: Scope) -> tuple[str, ...]:
    """What `systemd-analyze verify` reports about unit files; nothing if it is not installed."""
    done = run(("systemd-analyze", f"--{scope.value}", "verify", *map(str, paths)), timeout_s=60)
    if done.returncode == 127:
        return ()
    return tuple(line for line in (done.stderr + done.stdout).splitlines() if line.strip())
