"""HAProxy's runtime API, and its service on this machine. Unix socket, subprocess, disk."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from nemotron_ops.deploy.balancer.config import MARK, ServerState, parse_stat, set_state
from nemotron_ops.errors import DeployError
from nemotron_ops.files import write_atomic
from nemotron_ops.proc import run
from nemotron_ops.progress import Report, Step

CONFIG = Path("/etc/haproxy/haproxy.cfg")
USER = "haproxy"  # user, group and folder come with the packages of Debian, Ubuntu, Fedora and RHEL
CHROOT = "/var/lib/haproxy"
DRAIN_S = 120.0
POLL_S = 0.2


def ask(path: Path, command: str) -> str:
    """The runtime API's answer to one command. Raises DeployError if it cannot be reached."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(path))
            s.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: s.recv(65536), b"")).decode(errors="replace")
    except OSError as exc:
        raise DeployError(
            f"cannot talk to the balancer at {path}: {exc.strerror or exc}",
            hint="is HAProxy running with the configuration that `balancer install` wrote?",
        ) from exc


def states(path: Path) -> tuple[ServerState, ...]:
    return parse_stat(ask(path, "show stat"))


def take_out(path: Path, name: str, *, report: Report, within_s: float = DRAIN_S) -> None:
    """Drain a host: it gets no new requests; returns when none is left there, or after `within_s`."""
    _set_state(path, name, "drain")
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        left = [s.running + s.queued for s in states(path) if s.name == name]
        if not left or left[0] == 0:
            return
        report(Step(what="drain", note=f"{name}: {left[0]} requests in flight"))
        time.sleep(POLL_S)


def put_back(path: Path, name: str) -> None:
    _set_state(path, name, "ready")


def install(text: str, *, config: Path = CONFIG, force: bool = False) -> None:
    """Write the configuration of HAProxy's service, after HAProxy itself has checked it, and reload the service.

    A configuration that is not ours is overwritten only with `force`, and kept as `.before`.
    """
    current = config.read_text(errors="replace") if config.exists() else ""
    if current and not current.startswith(MARK):
        if not force:
            raise DeployError(
                f"cannot install the balancer: {config} is not ours",
                hint=f"--force keeps it as {config}.before and replaces it",
            )
        write_atomic(config.with_name(config.name + ".before"), current)
    trial = config.with_name(".nemotron-ops.cfg")
    write_atomic(trial, text)
    try:
        check(trial)
    finally:
        trial.unlink()
    write_atomic(config, text)
    done = run(("systemctl", "reload-or-restart", "haproxy.service"), timeout_s=60)
    if not done.ok:
        raise DeployError(f"cannot reload haproxy.service: {done.stderr.strip()}", hint="journalctl -u haproxy")


def check(config: Path) -> None:
    """Raise DeployError, with HAProxy's own message, if the configuration is invalid."""
    done = run(("haproxy", "-c", "-f", config), timeout_s=30)
    if done.returncode == 127:
        raise DeployError(
            "cannot check the balancer's configuration: haproxy is not installed", hint="apt-get install haproxy"
        )
    if not done.ok:
        raise DeployError(
            "cannot use the balancer's configuration: haproxy refuses it", log_tail=tuple(done.stderr.splitlines()[-8:])
        )


def _set_state(path: Path, name: str, state: str) -> None:
    answer = ask(path, set_state(name, state)).strip()
    if answer:
        raise DeployError(f"cannot set {name} to {state}: {answer}")
