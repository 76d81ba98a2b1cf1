"""The launchd agent of a service on macOS. Pure.

launchd has no readiness, no watchdog and no socket hand-over that suits a user's agent, so this is the plain thing:
kept alive, restarted after a crash, engines left alone (`AbandonProcessGroup`) so that they can be adopted.
"""

from __future__ import annotations

import plistlib
from pathlib import Path

from nemotron_ops.service.units import ServiceSpec, serve_argv

LABEL = "io.github.nemotron-ops"


def agent_path(home: Path) -> Path:
    return home / "Library/LaunchAgents" / f"{LABEL}.plist"


def agent(spec: ServiceSpec, *, home: Path) -> bytes:
    """The property list of a user's agent."""
    log = str(home / "Library/Logs/nemotron-ops.log")
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
    return ("launchctl", "bootout", f"gui/{uid}/{LABEL}")
