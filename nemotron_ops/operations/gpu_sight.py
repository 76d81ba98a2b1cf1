"""Checks whether a GPU is visible: its device nodes, and what the current build's llama-server lists. Subprocess."""

from __future__ import annotations

from pathlib import Path

from nemotron_ops import proc
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.spec import Backend
from nemotron_ops.builds.store import store
from nemotron_ops.paths import Layout
from nemotron_ops.service.gpu import GpuCheck, missing_nodes

LIST_TIMEOUT_S = 60.0  # a driver that initialises all its GPUs for the first time is slow


def look_for_gpu(layout: Layout, kind: str, *, root: Path = Path("/")) -> GpuCheck:
    """Device nodes and build; the devices of this kind too, where nodes and build are right."""
    build = store.current(layout)
    lacking = missing_nodes(kind, present=lambda pattern: any(root.glob(pattern.lstrip("/"))))
    if build is None or build.backend != kind or lacking:
        return GpuCheck(missing=lacking, backend=build.backend if build else "")
    done = proc.run([build.binary("llama-server"), "--list-devices"], timeout_s=LIST_TIMEOUT_S)
    devices = tuple(n for n in proofs.devices(done.stdout) if done.ok and proofs.has_device((n,), Backend(kind)))
    said = (done.stderr or done.stdout).splitlines()[-10:]
    return GpuCheck(backend=build.backend, devices=devices, output=() if devices else tuple(said))
