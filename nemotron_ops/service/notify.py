"""Tells the service manager how the service is doing: sd_notify, with the standard library only. Environment, socket.

What to tell is decided from plain values by functions over `Said` (`told`, `going_on`, `reload_begins`,
`reload_ended`); `Notifier` remembers what was said and sends the difference. The words are those of sd_notify(3):

    READY=1                 once, when nothing is loading any more and something can answer; again after a reload
    STATUS=                 a line for `systemctl status`, whenever it changes
    EXTEND_TIMEOUT_USEC=    while a start or a reload goes on, so that it is cut short by a stall, not by its length:
                            at any sign that a load moves, and while models' bytes are proven before it
    WATCHDOG=1              while each of the supervisor's own tasks comes round, never from a timer of its own
    RELOADING=1, STOPPING=1 as the service passes through them
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

EXTEND_S = 120  # each sign of progress buys a loading service this much more time
EXTEND_PERIOD_S = 5.0  # signs come many times a second
EXTEND = f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}"
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
    reloading: bool = False
    status: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    extended_at: float = float("-inf")  # monotonic seconds


def told(said: Said, instances: Iterable[Seen]) -> tuple[Said, tuple[str, ...]]:
    """What to say now, given what was said before: the new memory, and the lines to send."""
    seen = tuple(instances)
    status = status_line(seen)
    states = {i.name: i.state for i in seen}
    lines: list[str] = []
    if status != said.status:
        lines.append(f"STATUS={status}")
    if waited_for(said) and states != said.states:
        lines.append(EXTEND)
    if not said.ready and is_up(seen):
        lines.append("READY=1")
    return replace(said, status=status, states=states, ready=said.ready or is_up(seen)), tuple(lines)


def going_on(said: Said, now: float, *, status: str = "") -> tuple[Said, tuple[str, ...]]:
    """What to say at a sign that the work which is waited for moves; `status` describes it, if given."""
    if not waited_for(said) or now - said.extended_at < EXTEND_PERIOD_S:
        return said, ()
    lines = (f"STATUS={status}",) if status and status != said.status else ()
    return replace(said, extended_at=now, status=status or said.status), (*lines, EXTEND)


def reload_begins(said: Said, now: float) -> tuple[Said, tuple[str, ...]]:
    """What to say when a reload begins. A service that is not up yet goes on starting: nothing."""
    if not said.ready:
        return said, ()
    # systemd 253 and later wait for ever, or fail, without MONOTONIC_USEC
    return replace(said, reloading=True), ("RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}")


def reload_ended(said: Said) -> tuple[Said, tuple[str, ...]]:
    """What to say when a reload has ended. One during the first load has not made the service ready."""
    return replace(said, reloading=False), (("READY=1",) if said.reloading else ())


def waited_for(said: Said) -> bool:
    """Whether the service manager waits for the service, with a deadline that can be extended.

    At other times EXTEND_TIMEOUT_USEC would only put off the watchdog.
    """
    return not said.ready or said.reloading


def is_up(instances: tuple[Seen, ...]) -> bool:
    """Whether the service may be called up: nobody is on the way, and not everybody has failed."""
    if not instances or any(i.state not in SETTLED for i in instances):
        return False
    return not all(i.state == "failed" for i in instances)


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
        self._say(told(self._said, instances))

    def going_on(self, now: float, *, status: str = "") -> None:
        """There is a sign that the work which is waited for moves; `now` is the monotonic clock."""
        self._say(going_on(self._said, now, status=status))

    def alive(self) -> None:
        """The supervisor's own tasks have come round: feed the watchdog."""
        self.send("WATCHDOG=1")

    def reloading(self, now: float) -> None:
        """A reload begins; `now` is the monotonic clock. READY=1 is said again when it is done."""
        self._say(reload_begins(self._said, now))

    def reloaded(self) -> None:
        self._say(reload_ended(self._said))

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=draining")

    def _say(self, told: tuple[Said, tuple[str, ...]]) -> None:
        self._said, lines = told
        self.send(*lines)

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
