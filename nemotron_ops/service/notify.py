"""Tells the service manager how the service is doing: sd_notify, with the standard library only. Environment, socket.

What to tell is decided by `told` from plain values (a pure function over `Said`); `Notifier` remembers what was
said and sends the difference. The words are those of sd_notify(3):

    READY=1                 once, when nothing is loading any more and something can answer
    STATUS=                 a line for `systemctl status`, whenever it changes
    EXTEND_TIMEOUT_USEC=    whenever a load has advanced, so that a start is cut short by a stall, not by its length
    WATCHDOG=1              from the supervisor's own loop, never from a timer of its own
    RELOADING=1, STOPPING=1 as the service passes through them
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

EXTEND_S = 120  # each sign of progress buys a loading service this much more time
SETTLED = frozenset({"ready", "failed", "stopped"})


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One instance as the service manager cares about it; `state` in the words of the supervisor's snapshot."""

    name: str
    state: str
    load_progress: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the service manager has been told already."""

    ready: bool = False
    status: str = ""
    progress: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


def told(said: Said, instances: Iterable[Seen]) -> tuple[Said, tuple[str, ...]]:
    """What to say now, given what was said before: the new memory, and the lines to send."""
    seen = tuple(instances)
    status = status_line(seen)
    progress = {i.name: i.load_progress for i in seen if i.load_progress is not None}
    states = {i.name: i.state for i in seen}
    lines: list[str] = []
    if status != said.status:
        lines.append(f"STATUS={status}")
    if not said.ready and (advanced(said.progress, progress) or states != said.states):
        lines.append(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")
    if not said.ready and is_up(seen):
        lines.append("READY=1")
    now = replace(said, status=status, progress=progress, states=states, ready=said.ready or is_up(seen))
    return now, tuple(lines)


def is_up(instances: tuple[Seen, ...]) -> bool:
    """Whether the service may be called up: nobody is on the way, and not everybody has failed."""
    if not instances or any(i.state not in SETTLED for i in instances):
        return False
    return not all(i.state == "failed" for i in instances)


def advanced(before: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether any load is further than it was."""
    return any(value > before.get(name, -1.0) for name, value in now.items())


def status_line(instances: tuple[Seen, ...]) -> str:
    """One line for people: `1 of 2 ready; loading 30b-0 40 %; failed 4b-0: out of device memory`."""
    if not instances:
        return "starting"
    ready = sum(i.state == "ready" for i in instances)
    parts = [f"{ready} of {len(instances)} ready"]
    for i in instances:
        if i.load_progress is not None and i.state == "starting":
            parts.append(f"loading {i.name} {100 * i.load_progress:.0f} %")
        elif i.state not in ("ready", "stopped"):
            parts.append(f"{i.state} {i.name}" + (f": {i.reason}" if i.reason else ""))
    return "; ".join(parts).replace("\n", " ")


class Notifier:
    """The wire to the service manager; silent where there is none (`$NOTIFY_SOCKET` unset)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        self._said = Said()

    def instances(self, instances: Iterable[Seen]) -> None:
        """Tell what has changed in the picture of all instances."""
        self._said, lines = told(self._said, instances)
        self.send(*lines)

    def alive(self) -> None:
        """The supervisor's own loop has come round: feed the watchdog."""
        self.send("WATCHDOG=1")

    def reloading(self, now_s: float) -> None:
        """A reload begins; `now_s` is the monotonic clock. READY=1 is said again when it is done."""
        # systemd 253 and later wait for ever, or fail, without MONOTONIC_USEC
        self.send("RELOADING=1", f"MONOTONIC_USEC={int(now_s * 1_000_000)}")

    def reloaded(self) -> None:
        self.send("READY=1")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=draining")

    def send(self, *lines: str) -> None:
        """One datagram. A service manager that is gone is no reason to fail."""
        if not self._address or not lines:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)  # a full queue must not stall the supervisor
            try:
                s.sendto("\n".join(lines).encode(), address)
            except OSError:
                return


def watchdog_period_s(env: Mapping[str, str], *, pid: int) -> float | None:
    """How often to call `alive`: a third of what the service manager allows; None if it does not watch us."""
    usec = env.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or env.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 3_000_000


def listen_fds(env: Mapping[str, str], *, pid: int) -> dict[str, int]:
    """Sockets that the service manager opened for us: name (FileDescriptorName=) -> file descriptor."""
    if env.get("LISTEN_PID") != str(pid) or not env.get("LISTEN_FDS", "").isdigit():
        return {}
    count = int(env["LISTEN_FDS"])
    names = env.get("LISTEN_FDNAMES", "").split(":")
    return {(names[i] if i < len(names) and names[i] else str(i)): 3 + i for i in range(count)}


def under_service_manager(env: Mapping[str, str] | None = None) -> bool:
    """Whether a service manager waits for our READY=1."""
    return bool((os.environ if env is None else env).get("NOTIFY_SOCKET"))
