"""Finds processes of ours that no record names: a record was damaged, or the disk was full. /proc, psutil.

A child carries its launch in its environment. It belongs to this state directory if a word of its command line is a
path below the runtime folder: an engine's own socket, or the control socket of a gateway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.records.record import LAUNCH_VARIABLE, Record


def launched() -> dict[str, int]:
    """Launch -> pid of every child of any supervisor of this user."""
    return process.find_launched(LAUNCH_VARIABLE)


def engines(layout: Layout, pids: Mapping[str, int], *, known: Collection[str]) -> list[Record]:
    """Engines of this state directory among `pids` whose launch is not in `known`.

    A process that was given the control socket is a companion, whatever other sockets it was given.
    """
    found: list[Record] = []
    for launch, pid in pids.items():
        argv = process.argv_of(pid)
        word = next((w for w in argv if _below(w, layout.runtime)), "")
        if launch not in known and word and str(layout.control_socket) not in argv:
            found.append(_record(Path(word).name.split("-" + launch[:8])[0], launch, pid, socket=word))
    return found


def companions(layout: Layout, pids: Mapping[str, int], *, module: str = "", name: str = "gateway") -> list[Record]:
    """Companions of this state directory among `pids` that still listen; `extra` has the descriptor and the port.

    `module`: only those that run this module.
    """
    found: list[Record] = []
    for launch, pid in pids.items():
        argv = process.argv_of(pid)
        if str(layout.control_socket) in argv and (not module or module in argv) and (where := listens(pid)):
            found.append(_record(name, launch, pid, extra=where))
    return found


def listens(pid: int) -> dict[str, int]:
    """Descriptor and port of the socket that a companion serves; empty if it listens no more."""
    argv = process.argv_of(pid)
    fd = argv[argv.index("--listen-fd") + 1] if "--listen-fd" in argv[:-1] else ""
    try:
        ports = [c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):
        return {}
    return {"fd": int(fd), "port": ports[0]} if ports and fd.isdigit() else {}


def _below(word: str, folder: Path) -> bool:
    return word.startswith(f"{folder}/")


def _record(name: str, launch: str, pid: int, *, socket: str = "", extra: Mapping[str, Any] | None = None) -> Record:
    return Record(
        id=name, launch=launch, socket=socket, pid=pid, started=process.started(pid) or "", extra=extra or {}
    )  # fmt: skip
