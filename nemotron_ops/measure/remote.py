"""What made the numbers of an endpoint on another machine: its processor, GPUs, driver, build and release. SSH.

One script asks for all of it. What the machine does not tell is left out: the numbers are kept all the same.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from nemotron_ops.installation import Installation
from nemotron_ops.operations.targets import open_targets

# nvidia-smi hangs with a broken driver
SCRIPT = """\
echo "system=$(uname -s)"
echo "machine=$(uname -m)"
echo "kernel=$(uname -r)"
echo "cores=$(getconf _NPROCESSORS_ONLN)"
echo "cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)"
echo "ram_kib=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo 2>/dev/null)"
if command -v nvidia-smi >/dev/null; then
  timeout 20 nvidia-smi --query-gpu=driver_version,memory.total,name --format=csv,noheader,nounits | sed 's/^/gpu=/'
fi
program=PROGRAM
[ -x "$program" ] || program=$(command -v nemotron-ops || echo false)
echo "versions=$("$program" --version 2>/dev/null | tr -d '\\n')"
echo "status=$("$program" status --json 2>/dev/null | tr -d '\\n')"
"""


def origin(target: str, model: str, here: Installation, *, config: Path | None) -> dict[str, Any]:
    """What `target` says of itself and of the build that serves `model`. Raises DeployError if it cannot be reached."""
    with open_targets((target,), here, system=None, config=config) as reached:
        _, site, connection = reached.look(reached.connections[0])
        said = connection.sh(script_for(site.program)).stdout
    return {"target": target, **read_origin(said, model)}


def script_for(program: PurePosixPath) -> str:
    """The script, for a release whose program is `program`."""
    return SCRIPT.replace("PROGRAM", shlex.quote(str(program)))


def read_origin(text: str, model: str) -> dict[str, Any]:
    """The output of the script as `made_by` has it: machine, versions, and the build that serves `model`."""
    values = [line.partition("=")[::2] for line in text.splitlines()]
    known = {k: v.strip() for k, v in values if k != "gpu"}
    gpus = [v.split(", ", 2) for k, v in values if k == "gpu"]
    gpus = [g for g in gpus if len(g) == 3 and g[1].isdigit()]
    machine: dict[str, Any] = {k: known[k] for k in ("system", "machine", "kernel", "cpu") if known.get(k)}
    if known.get("cores", "").isdigit():
        machine["cores"] = int(known["cores"])
    if known.get("ram_kib", "").isdigit():
        machine["ram_bytes"] = int(known["ram_kib"]) * 1024
    machine["gpus"] = [{"name": name, "kind": "cuda", "memory_bytes": int(mib) << 20} for _, mib, name in gpus]
    machine["driver"] = gpus[0][0] if gpus else ""
    found: dict[str, Any] = {"machine": machine}
    if build := _build(known.get("status", ""), model):
        found["build"] = {"id": build}
    if version := known.get("versions", ""):
        found["versions"] = {"nemotron_ops": version.split()[-1]}
    return found


def _build(status: str, model: str) -> str:
    try:
        return next(str(i["build"]) for i in json.loads(status)["instances"] if i["model"] == model)
    except (ValueError, KeyError, TypeError, StopIteration):
        return ""
