"""The launchd agent of a service on macOS: its property list, and the commands around it. Pure.

launchd has no readiness, no watchdog and no socket hand-over that suits a user's agent, so this is the plain thing:
kept alive, restarted after a crash, engines left alone (`AbandonProcessGroup`) so that they can be adopted.
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
        "EnvironmentVariables": {"PYTHONUNBUFFERED": "1", **spec.env},
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
    """SIGTERM, and ExitTimeOut for the end: models are stopped too. At the next login it is loaded again."""
    return ("launchctl", "bootout", f"gui/{uid}/{LABEL}")


def status_argv(uid: int) -> tuple[str, ...]:
    """Fails where the agent is not loaded."""
    return ("launchctl", "print", f"gui/{uid}/{LABEL}")


def hand_over_argv(uid: int) -> tuple[str, ...]:
    """SIGKILL counts as a crash: launchd starts the program again, which adopts the models."""
    return ("launchctl", "kill", "SIGKILL", f"gui/{uid}/{LABEL}")


def logs_argv(home: Path, *, follow: bool, lines: int) -> tuple[str, ...]:
    return ("tail", "-n", str(lines), *(("-F",) if follow else ()), str(log_path(home)))


def running_pid(printed: str) -> int:
    """The agent's process in the answer to `status_argv`; 0 where none runs."""
    words = [line.split() for line in printed.splitlines()]
    return next((int(w[2]) for w in words if w[:2] == ["pid", "="] and w[2:] and w[2].isdigit()), 0)
