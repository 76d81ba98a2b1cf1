"""The folders of an installation: one frozen Layout, chosen once at the edge. Pure.

    data/      builds, sources, toolchains, models    XDG_DATA_HOME/nemotron-ops     /var/lib/nemotron-ops
    cache/     downloads that can be fetched again    XDG_CACHE_HOME/nemotron-ops    /var/cache/nemotron-ops
    config/    user recipes, settings, keys           XDG_CONFIG_HOME/nemotron-ops   /etc/nemotron-ops
    state/     wanted instances, records of children  XDG_STATE_HOME/nemotron-ops    /var/lib/nemotron-ops/state
    logs/      one log per instance                   state/logs                     /var/log/nemotron-ops
    runtime/   sockets, lost at a reboot              XDG_RUNTIME_DIR/nemotron-ops   /run/nemotron-ops

`NEMOTRON_OPS_HOME` puts all of it under one folder; `NEMOTRON_OPS_STATE` and `NEMOTRON_OPS_RUNTIME` move state (with
logs) and runtime alone, so that a second supervisor can share builds and models with the first. A unix socket's path
may have 107 bytes at most (sockaddr_un), so a runtime folder that would be too long moves to /tmp under a hash of the
wanted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

SOCKET_NAME_BYTES = 40  # room for "/<instance>-<generation>.sock" below the runtime folder
SOCKET_PATH_BYTES = 107


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Folders of one installation. None of them need exist."""

    data: Path
    cache: Path
    config: Path
    state: Path
    logs: Path
    runtime: Path

    @property
    def builds(self) -> Path:
        return self.data / "builds"

    @property
    def toolchains(self) -> Path:
        return self.data / "toolchains"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def sources(self) -> Path:
        return self.cache / "sources"

    @property
    def user_recipes(self) -> Path:
        return self.config / "recipes"

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"


def user_layout(env: Mapping[str, str], *, uid: int) -> Layout:
    """The Layout of an ordinary user, from XDG variables or `NEMOTRON_OPS_HOME` in `env`."""
    wanted = _one_folder(Path(env["NEMOTRON_OPS_HOME"]).absolute()) if env.get("NEMOTRON_OPS_HOME") else _xdg(env)
    if state := env.get("NEMOTRON_OPS_STATE"):
        wanted = replace(wanted, state=Path(state).absolute(), logs=Path(state).absolute() / "logs")
    if runtime := env.get("NEMOTRON_OPS_RUNTIME"):
        wanted = replace(wanted, runtime=Path(runtime).absolute())
    return replace(wanted, runtime=short_runtime(wanted.runtime, uid=uid))


def system_layout() -> Layout:
    """The Layout of a system service."""
    lib = Path("/var/lib/nemotron-ops")
    return Layout(
        data=lib,
        cache=Path("/var/cache/nemotron-ops"),
        config=Path("/etc/nemotron-ops"),
        state=lib / "state",
        logs=Path("/var/log/nemotron-ops"),
        runtime=Path("/run/nemotron-ops"),
    )


def _one_folder(root: Path) -> Layout:
    return Layout(
        data=root / "data",
        cache=root / "cache",
        config=root / "config",
        state=root / "state",
        logs=root / "state/logs",
        runtime=root / "run",
    )


def _xdg(env: Mapping[str, str]) -> Layout:
    home = Path(env.get("HOME", "/"))
    state = Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "nemotron-ops"
    runtime = env.get("XDG_RUNTIME_DIR")
    return Layout(
        data=Path(env.get("XDG_DATA_HOME") or home / ".local/share") / "nemotron-ops",
        cache=Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "nemotron-ops",
        config=Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "nemotron-ops",
        state=state,
        logs=state / "logs",
        runtime=Path(runtime) / "nemotron-ops" if runtime else state / "run",
    )


def short_runtime(wanted: Path, *, uid: int) -> Path:
    """`wanted`, or a short path under /tmp where its sockets' paths would be too long."""
    if len(str(wanted).encode()) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES:
        return wanted
    tag = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    return Path(f"/tmp/nemotron-ops-{uid}-{tag}")
