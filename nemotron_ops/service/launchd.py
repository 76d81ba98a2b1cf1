"""Renders the launchd agent of a service on macOS, and the commands around it. Pure.

launchd has no readiness, no watchdog and no socket activation that suits a user's agent. The agent is only kept alive
and restarted after a crash; engines stay alive (`AbandonProcessGroup`), so that the next supervisor adopts them.
"""

from __future__ import annotations

import plistlib
from pathlib import Path

from nemotron_ops.service.commands import serve_argv
from nemotron_ops.service.spec import ServiceSpec

LABEL = "io.github.nemotron-ops"


def agent_path(home: Path) -> Path:
    return home / "Library/LaunchAgents" / f"{LABEL}.plist"


def log_path(home: Path) -> Path:
    return home / "Library/Logs/nemotron-ops.log"


def agent(spec: ServiceSpec, *, home: Path) -> bytes:
    """The property list of a user's agent."""
    log = str(log_path(home))
    return plistlib.dumps({
        "Label": LABEL,
        "ProgramArguments": list(serve_argv(spec)),
        "EnvironmentVariables": {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", **spec.env},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "AbandonProcessGroup": True,
        "ExitTimeOut": 120,
        "ProcessType": "Interactive",
        "StandardOutPath": log,
        "StandardErrorPath": log,
    })  # fmt: skip


def load_argv(uid: int, path: Path) -> tuple[str, ...]:
    return ("launchctl", "bootstrap", f"gui/{uid}", str(path))


def unload_argv(uid: int) -> tuple[str, ...]:
    """Sends SIGTERM and waits for ExitTimeOut; models stop too. The next login loads the agent again."""
    return ("launchctl", "bootout", f"gui/{uid}/{LABEL}")


def status_argv(uid: int) -> tuple[str, ...]:
    """Fails if the agent is not loaded."""
    return ("launchctl", "print", f"gui/{uid}/{LABEL}")


def hand_over_argv(uid: int) -> tuple[str, ...]:
    """SIGKILL counts as a crash: launchd starts the program again, which adopts the models."""
    return ("launchctl", "kill", "SIGKILL", f"gui/{uid}/{LABEL}")


def logs_argv(home: Path, *, follow: bool, lines: int) -> tuple[str, ...]:
    return ("tail", "-n", str(lines), *(("-F",) if follow else ()), str(log_path(home)))


def running_pid(printed: str) -> int:
    """The agent's process id in the output of `status_argv`; 0 if none runs."""
    words = [line.split() for line in printed.splitlines()]
    return next((int(w[2]) for w in words if w[:2] == ["pid", "="] and w[2:] and w[2].isdigit()), 0)
