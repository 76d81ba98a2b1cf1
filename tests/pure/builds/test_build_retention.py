"""Retention: builds that are kept, builds that are removed, and leftovers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.builds.store import build_lock, pruning, store
from nemotron_ops.builds.store.retention import Needs, prunable, reason_to_stay
from nemotron_ops.builds.store.store import Build
from nemotron_ops.paths import Layout
from tests.fakes.build_store import manifest, put


def builds(*ids: str, imported: tuple[str, ...] = ()) -> tuple[Build, ...]:
    """Builds, newest first."""
    return tuple(
        Build(id=i, path=Path("/b", i), manifest={"imported_at": 1.0} if i in imported else {}) for i in ids
    )  # fmt: skip


def test_the_newest_stay_and_older_ones_go() -> None:
    assert [b.id for b in prunable(builds("e", "d", "c", "b", "a"), Needs(current="e"), keep=2)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Needs(current="a"), "current"),
        (Needs(previous="a"), "rollback goes back to it"),
        (Needs(pinned={"a"}), "pinned"),
        (Needs(in_use={"a"}), "in use"),
    ],
)
def test_what_is_needed_stays_however_old_it_is(needs: Needs, reason: str) -> None:
    old = builds("c", "b", "a")
    assert reason_to_stay(old[-1], needs) == reason
    assert [b.id for b in prunable(old, needs, keep=0)] == ["c", "b"]


def test_an_imported_build_stays_since_it_may_not_be_buildable_here() -> None:
    found = builds("c", "b", "a", imported=("b",))
    assert reason_to_stay(found[1], Needs()) == "imported"
    assert [b.id for b in prunable(found, Needs(), keep=0)] == ["c", "a"]


@pytest.mark.parametrize("keep", [-1, -2, 99])
def test_all_stay_where_all_are_to_be_kept(keep: int) -> None:
    assert prunable(builds("c", "b", "a"), Needs(), keep=keep) == ()


@given(keep=st.integers(-3, 12), needed=st.sets(st.sampled_from("abcdefgh")), data=st.data())
def test_never_one_that_is_needed_nor_one_of_the_newest(keep: int, needed: set[str], data: st.DataObject) -> None:
    found = builds(*data.draw(st.permutations("abcdefgh")))
    old = prunable(found, Needs(in_use=needed), keep=keep)
    assert not {b.id for b in old} & needed
    if keep >= 0:
        assert not {b.id for b in old} & {b.id for b in found[:keep]}
        assert {b.id for b in found[keep:]} - needed == {b.id for b in old}


def test_pins_are_kept_until_they_are_taken_off(layout: Layout) -> None:
    a, b = put(layout, "cpu-a-1"), put(layout, "cpu-b-2")
    assert pruning.pinned(layout) == frozenset()
    pruning.pin(layout, a)
    pruning.pin(layout, a)
    pruning.pin(layout, b)
    assert pruning.pinned(layout) == {a.id, b.id}
    pruning.pin(layout, a, on=False)
    assert pruning.pinned(layout) == {b.id}


def test_a_pin_goes_with_its_build(layout: Layout) -> None:
    a, b = put(layout, "cpu-a-1"), put(layout, "cpu-b-2")
    pruning.pin(layout, a)
    store.remove(layout, a)
    pruning.pin(layout, b)
    assert pruning.pinned(layout) == {b.id}


def test_removing_frees_what_it_said(layout: Layout) -> None:
    old, now = put(layout, "cpu-a-1", made_at=1), put(layout, "cpu-b-2", made_at=2)
    store.use(layout, now)
    expected = pruning.outlook([old])
    done = pruning.prune(layout, [old])
    assert done == expected
    assert done.builds == (old.id,)
    assert done.freed_bytes == old_size(old.id)
    assert store.listed(layout) == (now,)
    assert not (layout.builds / ".trash").exists()


def old_size(build_id: str) -> int:
    import json

    return len(build_id) + len(json.dumps(manifest(build_id, made_at=1), indent=2)) + 1


def test_files_with_other_names_free_nothing(layout: Layout, tmp_path: Path) -> None:
    a = put(layout, "cpu-a-1")
    before = pruning.freed_bytes(a.path)
    shared = tmp_path / "libcublas.so.13"
    shared.write_bytes(b"x" * 1000)
    os.link(shared, a.path / "bin/libcublas.so.13")
    assert pruning.freed_bytes(a.path) == before


def test_what_became_needed_meanwhile_stays(layout: Layout) -> None:
    a, b, c = (put(layout, f"cpu-{name}-1") for name in "abc")
    store.use(layout, a)
    store.remove(layout, c)  # another process was quicker
    with build_lock.building(layout, b.id):
        assert pruning.prune(layout, [a, b, c]) == pruning.Removed()
    assert {x.id for x in store.listed(layout)} == {a.id, b.id}
