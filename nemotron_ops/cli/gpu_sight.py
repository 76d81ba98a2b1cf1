"""What can be seen of a GPU from here: device nodes, and what the current build's llama-server lists. Subprocess."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops import proc
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.spec import Backend
from nemotron_ops.builds.store import store
from nemotron_ops.service.gpu import GpuCheck, missing_nodes

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App

LIST_TIMEOUT_S = 60.0  # a driver that wakes up all its GPUs for the first time takes its while


def look_for_gpu(app: App, kind: str, *, root: Path = Path("/")) -> GpuCheck:
    """Nodes and build; where both are as they should be, the devices of this kind too."""
    build = store.current(app.layout)
    lacking = missing_nodes(kind, present=lambda pattern: any(root.glob(pattern.lstrip("/"))))
    if build is None or build.backend != kind or lacking:
        return GpuCheck(missing=lacking, backend=build.backend if build else "")
    done = proc.run([build.binary("llama-server"), "--list-devices"], timeout_s=LIST_TIMEOUT_S)
    devices = tuple(n for n in proofs.devices(done.stdout) if done.ok and proofs.has_device((n,), Backend(kind)))
    said = (done.stderr or done.stdout).splitlines()[-10:]
    return GpuCheck(backend=build.backend, devices=devices, output=() if devices else tuple(said))
