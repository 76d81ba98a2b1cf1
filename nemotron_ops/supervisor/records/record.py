"""Records of processes, by which a later supervisor finds them again. Disk.

    state/instances/<id>.json    one record per llama-server
    state/<id>.json              one record per companion: gateway.json
    state/wanted.json            instances that were started or stopped by hand

A record is written twice: before the process is started (`pid` 0, with the random `launch` that the child carries in
its environment) and once its pid and start time are known. So the child of a supervisor that is killed in between is
still found, by its `launch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.paths import Layout
from nemotron_ops.supervisor import spec as specs
from nemotron_ops.supervisor.spec import InstanceSpec

LAUNCH_VARIABLE = "NEMOTRON_OPS_LAUNCH"  # in every child's environment


@dataclass(frozen=True, kw_only=True)
class Record:
    """One process. `pid` and `started` (the kernel's start time of it) together identify a process for ever."""

    id: str  # instance name, with "~2" for the second generation during a change
    launch: str
    socket: str = ""
    key_file: str = ""
    log: str = ""
    log_offset: int = 0  # where the lines of this process begin
    pid: int = 0
    started: str = ""
    wall_s: float = 0.0  # when it was started, in Unix time
    spec: InstanceSpec | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def records_dir(layout: Layout) -> Path:
    return layout.state / "instances"


def write(layout: Layout, record: Record) -> None:
    write_json(records_dir(layout) / f"{record.id}.json", to_json(record), mode=0o600)


def remove(layout: Layout, record_id: str) -> None:
    (records_dir(layout) / f"{record_id}.json").unlink(missing_ok=True)


def read_all(layout: Layout) -> Iterator[Record]:
    """All valid records; a damaged one is renamed, since none of its values can be trusted."""
    for path in sorted(records_dir(layout).glob("*.json")):
        try:
            value = read_json(path)
            if value is not None:
                yield from_json(value)
        except (NemotronOpsError, KeyError, TypeError, ValueError):
            path.rename(path.with_suffix(".damaged"))


def companion_path(layout: Layout, companion_id: str) -> Path:
    return layout.state / f"{companion_id}.json"


def write_companion(layout: Layout, record: Record) -> None:
    write_json(companion_path(layout, record.id), to_json(record), mode=0o600)


def read_companion(layout: Layout, companion_id: str) -> Record | None:
    """The record of a companion; None if it is missing or damaged."""
    try:
        value = read_json(companion_path(layout, companion_id))
        return from_json(value) if isinstance(value, dict) else None
    except (NemotronOpsError, KeyError, TypeError, ValueError):
        return None


def to_json(record: Record) -> dict[str, Any]:
    value = asdict(record)
    value["spec"] = specs.to_json(record.spec) if record.spec else None
    return value


def from_json(value: Mapping[str, Any]) -> Record:
    known = {k: v for k, v in value.items() if k in Record.__dataclass_fields__}
    spec = known.get("spec")
    return replace(Record(**{**known, "spec": None}), spec=specs.from_json(spec) if spec else None)


def read_held(layout: Layout) -> dict[str, bool]:
    """Instance name -> wanted, for instances that were started or stopped by hand."""
    try:
        value = read_json(layout.state / "wanted.json")
    except NemotronOpsError:
        return {}
    return {str(k): bool(v) for k, v in value.items()} if isinstance(value, dict) else {}


def write_held(layout: Layout, held: Mapping[str, bool]) -> None:
    write_json(layout.state / "wanted.json", dict(held))
