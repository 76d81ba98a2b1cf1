"""Records of processes, whole and damaged: each file with each damage. Disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.supervisor.records import adopt, lock, record
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.spec import InstanceSpec
from tests.tables.damages import DAMAGES


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = user_layout({"NEMOTRON_OPS_HOME": str(tmp_path / "home")}, uid=os.getuid())
    spec = InstanceSpec(name="a-0", model="a", argv=("llama-server",))
    record.write(made, Record(id="a-0", launch="1" * 16, pid=1 << 30, started="never", spec=spec))
    record.write_companion(made, Record(id="gateway", launch="2" * 16, pid=1 << 30, started="never", extra={"fd": 5}))
    record.write_held(made, {"a-0": True})
    return made


def test_a_whole_record_is_read_as_it_was_written(layout: Layout) -> None:
    (found,) = record.read_all(layout)
    assert (found.id, found.spec and found.spec.argv) == ("a-0", ("llama-server",))
    companion = record.read_companion(layout, "gateway")
    assert companion is not None
    assert companion.extra == {"fd": 5}
    assert record.read_held(layout) == {"a-0": True}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_of_a_record_raises_and_each_is_set_aside(layout: Layout, damage: str) -> None:
    for path in (record.records_dir(layout) / "a-0.json", layout.state / "gateway.json", layout.state / "wanted.json"):
        DAMAGES[damage](path)
    assert adopt.find(layout).alive == ()
    companion = record.read_companion(layout, "gateway")
    assert companion is None or companion.started == "never"
    assert set(record.read_held(layout)) <= {"a-0"}
    assert adopt.find(layout).damaged == (), "set aside by the first look"


TYPES: list[Callable[[dict[str, Any]], None]] = [
    lambda v: v.update(id="../../other"),
    lambda v: v.update(pid="7"),
    lambda v: v.update(socket=5),
    lambda v: v["spec"].update(argv=[1, 2]),
    lambda v: v["spec"].update(env=[]),
    lambda v: v["spec"]["health"].update(drain_s="long"),
    lambda v: v["spec"]["restart"].update(policy="sometimes"),
    lambda v: v["spec"].update(lifecycle=None),
]


@pytest.mark.parametrize("change", TYPES, ids=range(len(TYPES)))
def test_a_value_of_the_wrong_type_is_a_damage(layout: Layout, change: Callable[[dict[str, Any]], None]) -> None:
    path = record.records_dir(layout) / "a-0.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    assert adopt.find(layout).damaged == ("a-0",)


def test_a_record_that_cannot_be_written_raises_nothing(layout: Layout) -> None:
    record.remove(layout, "a-0")
    record.records_dir(layout).rmdir()
    record.records_dir(layout).write_text("in the way")
    assert not record.write(layout, Record(id="a-0", launch="1" * 16))


def test_a_folder_in_the_place_of_the_lock_is_an_error_with_its_path(layout: Layout) -> None:
    lock.lock_path(layout).mkdir(parents=True)
    with pytest.raises(ControlError, match=r"supervisor\.lock"):
        lock.take(layout)


def test_a_runtime_folder_that_is_a_link_is_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    layout.runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="it is a link"):
        lock.make_private(layout)
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755


def test_lock_files_are_for_their_owner_only(tmp_path: Path) -> None:
    from nemotron_ops.files import locked

    (tmp_path / "keys.lock").touch(mode=0o644)
    with locked(tmp_path / "keys.lock"):
        assert (tmp_path / "keys.lock").stat().st_mode & 0o777 == 0o600
