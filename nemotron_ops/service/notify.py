"""Reports the service's state to the service manager: sd_notify, standard library only. Environment, socket.

Pure functions over `NotifyState` (`on_instances`, `on_progress`, `on_reload`, `on_reload_end`) decide what to send;
`Notifier` holds the state and sends. The messages are those of sd_notify(3):

    READY=1                 once, when no instance is loading and one can answer; again after a reload
    STATUS=                 a line for `systemctl status`, whenever it changes
    EXTEND_TIMEOUT_USEC=    during a start or a reload, so that a stall ends it, not its length: at every progress of a
                            load, and while the bytes of models are verified before it
    WATCHDOG=1              while each of the supervisor's own tasks is alive, never from a timer of its own
    RELOADING=1, STOPPING=1 as the service passes through them
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

EXTEND_S = 120  # a loading service gets this much more time at each progress
EXTEND_PERIOD_S = 5.0  # progress is reported many times a second
EXTEND = f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}"
SETTLED = frozenset({"ready", "failed", "stopped"})


@dataclass(frozen=True, kw_only=True)
class InstanceState:
    """One instance, as far as the service manager needs it; `state` as in the supervisor's snapshot."""

    name: str
    state: str
    load_progress: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class NotifyState:
    """What was sent to the service manager so far."""

    ready: bool = False
    reloading: bool = False
    status: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    extended_at: float = float("-inf")  # monotonic seconds


def on_instances(sent: NotifyState, instances: Iterable[InstanceState]) -> tuple[NotifyState, tuple[str, ...]]:
    """The new state, and the lines to send, for the present state of all instances."""
    current = tuple(instances)
    status = status_line(current)
    states = {i.name: i.state for i in current}
    lines: list[str] = []
    if status != sent.status:
        lines.append(f"STATUS={status}")
    if timeout_runs(sent) and states != sent.states:
        lines.append(EXTEND)
    if not sent.ready and is_up(current):
        lines.append("READY=1")
    return replace(sent, status=status, states=states, ready=sent.ready or is_up(current)), tuple(lines)


def on_progress(sent: NotifyState, now: float, *, status: str = "") -> tuple[NotifyState, tuple[str, ...]]:
    """The new state, and the lines to send, when work that the service manager waits for advances, as `status` says."""
    if not timeout_runs(sent) or now - sent.extended_at < EXTEND_PERIOD_S:
        return sent, ()
    lines = (f"STATUS={status}",) if status and status != sent.status else ()
    return replace(sent, extended_at=now, status=status or sent.status), (*lines, EXTEND)


def on_reload(sent: NotifyState, now: float) -> tuple[NotifyState, tuple[str, ...]]:
    """The new state, and the lines to send, when a reload begins; none while the service is still starting."""
    if not sent.ready:
        return sent, ()
    # without MONOTONIC_USEC, systemd 253 and later wait forever or fail
    return replace(sent, reloading=True), ("RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}")


def on_reload_end(sent: NotifyState) -> tuple[NotifyState, tuple[str, ...]]:
    """The new state, and the lines to send, when a reload has ended; READY=1 only if its begin was sent."""
    return replace(sent, reloading=False), (("READY=1",) if sent.reloading else ())


def timeout_runs(sent: NotifyState) -> bool:
    """Whether the service manager waits for a start or reload, with a timeout that can be extended.

    At other times EXTEND_TIMEOUT_USEC would only delay the watchdog.
    """
    return not sent.ready or sent.reloading


def is_up(instances: tuple[InstanceState, ...]) -> bool:
    """Whether the service counts as up: no instance is loading, and not all have failed; also without any."""
    if any(i.state not in SETTLED for i in instances):
        return False
    return not instances or not all(i.state == "failed" for i in instances)


def status_line(instances: tuple[InstanceState, ...]) -> str:
    """One line for `systemctl status`: `1 of 2 ready; loading 30b-0 40 %; failed 4b-0: out of device memory`."""
    if not instances:
        return "no model is served"
    ready = sum(i.state == "ready" for i in instances)
    parts = [f"{ready} of {len(instances)} ready"]
    for i in instances:
        if i.load_progress is not None and i.state == "starting":
            parts.append(f"loading {i.name} {100 * i.load_progress:.0f} %")
        elif i.state not in ("ready", "stopped"):
            parts.append(f"{i.state} {i.name}" + (f": {i.reason}" if i.reason else ""))
    return "; ".join(parts).replace("\n", " ")


class Notifier:
    """Sends to the service manager; does nothing without one (`$NOTIFY_SOCKET` unset)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        self._sent = NotifyState()

    def instances(self, instances: Iterable[InstanceState]) -> None:
        """Send what has changed among the instances."""
        self._send_change(on_instances(self._sent, instances))

    def progress(self, now: float, *, status: str = "") -> None:
        """Work that the service manager waits for has advanced; `now` is the monotonic clock."""
        self._send_change(on_progress(self._sent, now, status=status))

    def alive(self) -> None:
        """Reset the watchdog: the supervisor's own tasks are alive."""
        self.send("WATCHDOG=1")

    def reloading(self, now: float) -> None:
        """A reload begins; `now` is the monotonic clock. READY=1 is sent again when it has ended."""
        self._send_change(on_reload(self._sent, now))

    def reloaded(self) -> None:
        self._send_change(on_reload_end(self._sent))

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=draining")

    def _send_change(self, change: tuple[NotifyState, tuple[str, ...]]) -> None:
        self._sent, lines = change
        self.send(*lines)

    def send(self, *lines: str) -> None:
        """Send one datagram; a missing service manager is not an error."""
        if not self._address or not lines:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)  # a full queue must not block the supervisor
            try:
                s.sendto("\n".join(lines).encode(), address)
            except OSError:
                return


def watchdog_period_s(env: Mapping[str, str], *, pid: int) -> float | None:
    """The period for `alive`: a third of the watchdog's timeout; None without a watchdog."""
    usec = env.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or env.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 3_000_000


def listen_fds(env: Mapping[str, str], *, pid: int) -> dict[str, int]:
    """Sockets that the service manager passed: name (FileDescriptorName=) -> file descriptor."""
    if env.get("LISTEN_PID") != str(pid) or not env.get("LISTEN_FDS", "").isdigit():
        return {}
    count = int(env["LISTEN_FDS"])
    names = env.get("LISTEN_FDNAMES", "").split(":")
    return {(names[i] if i < len(names) and names[i] else str(i)): 3 + i for i in range(count)}


def under_service_manager(env: Mapping[str, str] | None = None) -> bool:
    """Whether a service manager waits for READY=1."""
    return bool((os.environ if env is None else env).get("NOTIFY_SOCKET"))
