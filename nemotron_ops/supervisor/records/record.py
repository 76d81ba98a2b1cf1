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
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.paths import Layout
from nemotron_ops.supervisor import spec as specs
from nemotron_ops.supervisor.spec import InstanceSpec

DAMAGE = (NemotronOpsError, AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError)
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


def write(layout: Layout, record: Record) -> bool:
    """Write it if the disk allows; a process without a record is found by its launch (`strays`)."""
    return _written(records_dir(layout) / f"{record.id}.json", record)


def remove(layout: Layout, record_id: str) -> None:
    with suppress(OSError):
        (records_dir(layout) / f"{record_id}.json").unlink(missing_ok=True)


def read_all(layout: Layout, damaged: list[str] | None = None) -> Iterator[Record]:
    """All valid records; a damaged one is set aside (none of its values can be trusted) and added to `damaged`."""
    for path in sorted(records_dir(layout).glob("*.json")):
        try:
            value = read_json(path)
            if value is not None:
                yield _checked(from_json(value), path)
        except DAMAGE:
            _set_aside(path)
            if damaged is not None:
                damaged.append(path.stem)


def companion_path(layout: Layout, companion_id: str) -> Path:
    return layout.state / f"{companion_id}.json"


def write_companion(layout: Layout, record: Record) -> bool:
    return _written(companion_path(layout, record.id), record)


def read_companion(layout: Layout, companion_id: str) -> Record | None:
    """The record of a companion; None if it is missing or damaged. A damaged one is set aside."""
    path = companion_path(layout, companion_id)
    try:
        value = read_json(path)
        return None if value is None else _checked(from_json(value), path)
    except DAMAGE:
        _set_aside(path)
        return None


def remove_companion(layout: Layout, companion_id: str) -> None:
    with suppress(OSError):
        companion_path(layout, companion_id).unlink(missing_ok=True)


def to_json(record: Record) -> dict[str, Any]:
    value = asdict(record)
    value["spec"] = specs.to_json(record.spec) if record.spec else None
    return value


def from_json(value: Mapping[str, Any]) -> Record:
    known = {k: v for k, v in value.items() if k in Record.__dataclass_fields__}
    spec = known.get("spec")
    return replace(Record(**{**known, "spec": None}), spec=specs.from_json(spec) if spec else None)


def _checked(record: Record, path: Path) -> Record:
    """`record` if its values have the types of its fields and it belongs into `path`. Raises TypeError otherwise."""
    specs.check_types(record)
    if record.id != path.stem:
        raise TypeError(f"the id {record.id!r} is not the file's")
    return record


def _written(path: Path, record: Record) -> bool:
    try:
        write_json(path, to_json(record), mode=0o600)
    except OSError:
        return False
    return True


def _set_aside(path: Path) -> None:
    with suppress(OSError):
        path.rename(path.with_suffix(".damaged"))


def read_held(layout: Layout) -> dict[str, bool]:
    """Instance name -> wanted, for instances that were started or stopped by hand."""
    try:
        value = read_json(layout.state / "wanted.json")
    except (NemotronOpsError, OSError):
        return {}
    return {str(k): bool(v) for k, v in value.items()} if isinstance(value, dict) else {}


def write_held(layout: Layout, held: Mapping[str, bool]) -> bool:
    """Write it if the disk allows; False if not: then the starts and stops end with this supervisor."""
    try:
        write_json(layout.state / "wanted.json", dict(held))
    except OSError:
        return False
    return True
