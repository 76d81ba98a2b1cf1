"""The store: pointers, crashes, leftovers; and the difference of two builds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.builds.carry import platform_json, refuse_platform
from nemotron_ops.builds.packages import pins
from nemotron_ops.builds.packages.package_table import HEAD, missing
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.diff import compare
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.store.unfinished import clear, leftovers
from nemotron_ops.errors import BuildError
from nemotron_ops.paths import Layout
from tests.fakes.build_store import SOURCE, manifest, put, put_unproven
from tests.fakes.machines import LAPTOP, MAC


def test_an_empty_store_has_nothing(layout: Layout) -> None:
    assert store.current(layout) is None
    assert store.previous(layout) is None
    assert store.listed(layout) == ()
    assert leftovers(layout) == ()


def test_a_published_build_is_whole_and_found(layout: Layout) -> None:
    made = put(layout, "cpu-a-1")
    assert store.get(layout, "cpu-a-1") == made
    assert made.binary("llama-server").read_text() == "cpu-a-1"
    assert made.version == "v0.5.0"
    assert not store.new_dir(layout, "cpu-a-1").exists()


@pytest.mark.parametrize(
    ("label", "number", "shown"),
    [
        ("v0.5.0", 0, "v0.5.0"),
        ("v0.5.0", 7, "b7 (v0.5.0)"),
        ("b7", 7, "0.5.0 (b7)"),
        ("llama-cpp-python 0.3.36", 11312, "0.5.0 b11312 (llama-cpp-python 0.3.36)"),
        ("a-folder", 0, "0.5.0 (a-folder)"),
    ],
)
def test_a_build_number_is_shown_only_where_it_is_known(label: str, number: int, shown: str) -> None:
    source = replace(SOURCE, label=label, number=number)
    assert Build(id="a", path=Path("/b"), manifest=manifest("a", source=source)).version == shown


def test_what_was_only_begun_is_no_build(layout: Layout) -> None:
    (store.new_dir(layout, "cpu-a-1") / "bin").mkdir(parents=True)
    store.work_dir(layout, "cpu-b-2").mkdir(parents=True)
    assert store.listed(layout) == ()
    assert store.get(layout, ".new") is None
    assert leftovers(layout) == (store.new_dir(layout, "cpu-a-1"), store.work_dir(layout, "cpu-b-2"))


def test_what_somebody_works_on_is_no_leftover(layout: Layout) -> None:
    store.work_dir(layout, "cpu-b-2").mkdir(parents=True)
    with build_lock.building(layout, "cpu-b-2"):
        assert leftovers(layout) == ()
        assert build_lock.count_building(layout) == 1
        with pytest.raises(build_lock.Busy), build_lock.building(layout, "cpu-b-2", timeout_s=0):
            pass
    assert build_lock.count_building(layout) == 0


def test_publishing_again_replaces_the_build(layout: Layout) -> None:
    put(layout, "cpu-a-1", made_at=1)
    put(layout, "cpu-a-1", made_at=2)
    found = store.get(layout, "cpu-a-1")
    assert found is not None
    assert found.made_at == 2
    assert not (layout.builds / ".trash").exists()


DIES = """
import os, signal, sys
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.paths import user_layout

layout, left = user_layout(dict(os.environ), uid=os.getuid()), [int(sys.argv[1])]

def rename(old, new, rename=os.rename):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    rename(old, new)

os.rename = rename
with build_lock.building(layout, "cpu-a-1"):
    store.publish(layout, "cpu-a-1", {**store.get(layout, "cpu-a-1").manifest, "made_at": 2})
"""


@pytest.mark.parametrize("after", range(3), ids=lambda n: f"after {n} renames")
@pytest.mark.parametrize("current", [True, False], ids=["current", "another"])
def test_a_kill_at_any_rename_of_a_replacement_loses_no_build(layout: Layout, after: int, current: bool) -> None:
    a, b = put(layout, "cpu-a-1", made_at=1), put(layout, "cpu-b-2")
    store.use(layout, a if current else b)
    (store.new_dir(layout, "cpu-a-1") / "bin").mkdir(parents=True)
    (store.new_dir(layout, "cpu-a-1") / "bin/llama-server").write_text("new")
    env = {"PATH": os.environ["PATH"], "NEMOTRON_OPS_HOME": str(layout.data.parent), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", DIES, str(after)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    put(layout, "cpu-c-3")  # the next removal empties the trash
    assert {x.id for x in store.listed(layout)} == {"cpu-a-1", "cpu-b-2", "cpu-c-3"}
    found = store.find(layout, "cpu-a-1")
    assert found.binary("llama-server").read_text() == ("new" if found.made_at == 2 else "cpu-a-1")
    assert store.current(layout) == (found if current else b)


def test_what_a_killed_replacement_left_is_no_leftover_before_it_is_put_back(layout: Layout) -> None:
    a = put(layout, "cpu-a-1")
    old = layout.builds / ".replaced/cpu-a-1"
    old.parent.mkdir()
    a.path.rename(old)
    assert leftovers(layout) == ()
    assert store.get(layout, "cpu-a-1") == a
    old.mkdir()
    assert leftovers(layout) == (old,)
    store.remove(layout, a)
    assert store.get(layout, "cpu-a-1") is None  # a removed build does not come back


def test_an_id_is_no_path(layout: Layout) -> None:
    put(layout, "cpu-a-1")
    (layout.builds / ".replaced").mkdir()
    assert store.get(layout, "../cpu-a-1") is None
    assert [b.id for b in store.listed(layout)] == ["cpu-a-1"]


def test_a_self_test_that_runs_is_no_leftover(layout: Layout) -> None:
    folders = (store.new_dir(layout, "cpu-a-1"), store.new_dir(layout, "cpu-a-1.selftest"))
    for folder in folders:
        folder.mkdir(parents=True)
    with build_lock.building(layout, "cpu-a-1"):
        assert leftovers(layout) == ()
    assert leftovers(layout) == folders


def test_an_import_that_runs_is_no_leftover(layout: Layout) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    running, left = (store.new_dir(layout, f"import-{pid}") for pid in (os.getpid(), gone.pid))
    running.mkdir(parents=True)
    left.mkdir()
    assert leftovers(layout) == (left,)


def test_what_somebody_has_begun_to_work_on_since_it_was_listed_stays(layout: Layout) -> None:
    store.work_dir(layout, "cpu-b-2").mkdir(parents=True)
    (left,) = leftovers(layout)
    with build_lock.building(layout, "cpu-b-2"):
        assert not clear(layout, left)
    assert left.exists()
    assert clear(layout, left)
    assert not left.exists()


def test_what_was_not_tested_on_its_device_is_never_current(layout: Layout) -> None:
    good, doubtful = put(layout, "cpu-a-1"), put_unproven(layout, "cuda-b-2")
    store.use(layout, good)
    with pytest.raises(BuildError, match="never tested on its own device") as caught:
        store.use(layout, doubtful)
    assert "nemotron-ops build" in (caught.value.hint or "")
    assert store.current(layout) == good
    store.use(layout, store.amend(doubtful, {"selftest": {"whole": True}}))
    assert store.previous(layout) == good
    put_unproven(layout, "cpu-a-1")
    assert store.previous(layout) is None
    with pytest.raises(BuildError, match="no previous build"):
        store.rollback(layout)


def test_use_and_rollback_walk_the_history(layout: Layout) -> None:
    a, b, c = (put(layout, f"cpu-{name}-1", made_at=i) for i, name in enumerate("abc"))
    for build in (a, b, c):
        store.use(layout, build)
    assert store.current(layout) == c
    assert store.rollback(layout) == b
    assert store.rollback(layout) == a
    with pytest.raises(BuildError, match="no previous build"):
        store.rollback(layout)
    assert store.current(layout) == a


def test_using_what_is_current_changes_nothing(layout: Layout) -> None:
    a, b = put(layout, "cpu-a-1"), put(layout, "cpu-b-2")
    store.use(layout, a)
    store.use(layout, b)
    store.use(layout, b)
    assert store.previous(layout) == a


def test_a_rollback_skips_builds_that_are_gone(layout: Layout) -> None:
    a, b, c = (put(layout, f"cpu-{name}-1") for name in "abc")
    for build in (a, b, c):
        store.use(layout, build)
    store.remove(layout, b)
    assert store.rollback(layout) == a


def test_a_pointer_to_a_build_that_is_gone_counts_as_none(layout: Layout) -> None:
    a = put(layout, "cpu-a-1")
    store.use(layout, a)
    store.remove(layout, a, force=True)
    assert store.current(layout) is None


def test_the_current_build_is_not_removed_by_accident(layout: Layout) -> None:
    a = put(layout, "cpu-a-1")
    store.use(layout, a)
    with pytest.raises(BuildError, match="it is current"):
        store.remove(layout, a)
    assert store.current(layout) == a


def test_a_build_is_found_by_a_part_of_its_id(layout: Layout) -> None:
    a = put(layout, "cpu-aaaa-1111")
    put(layout, "cpu-bbbb-2222")
    assert store.find(layout, "1111") == a
    with pytest.raises(BuildError, match="2 builds match"):
        store.find(layout, "cpu")
    with pytest.raises(BuildError, match="no such build"):
        store.find(layout, "cuda")
    with pytest.raises(BuildError, match="no such build"):
        store.find(layout, "current")


def test_a_program_that_is_missing_is_an_error(layout: Layout) -> None:
    with pytest.raises(BuildError, match="cannot use llama-cli"):
        put(layout, "cpu-a-1").binary("llama-cli")


def test_a_difference_names_versions_options_flags_and_who_breaks() -> None:
    old = manifest("a")
    new = manifest("b", source=replace(SOURCE, commit="b" * 40, label="b11434"), cmake_args=("GGML_LTO=ON",))
    found = compare(
        old, new,
        flags_a=frozenset({"--ctx-size", "--mlock"}), flags_b=frozenset({"--ctx-size", "--load-mode"}),
        recipe_flags={"30b": frozenset({"--mlock"}), "4b": frozenset({"--ctx-size"})},
    )  # fmt: skip
    assert found.facts["source"] == ("v0.5.0", "b11434")
    assert found.options == {"GGML_LTO": ("", "ON")}
    assert (found.new_flags, found.vanished_flags) == (("--load-mode",), ("--mlock",))
    assert found.users == {"--mlock": ("30b",)}
    assert found.breaks


def test_the_same_build_does_not_differ() -> None:
    same = manifest("a")
    found = compare(same, same, flags_a=frozenset({"-x"}), flags_b=frozenset({"-x"}), recipe_flags={})
    assert (found.facts, found.options, found.breaks) == ({}, {}, False)


def test_a_build_runs_on_a_machine_that_has_all_it_needs() -> None:
    needs = platform_json(LAPTOP, portable=False)
    assert refuse_platform(needs, LAPTOP) == ""
    assert refuse_platform(needs, replace(LAPTOP, glibc=(2, 39), cpu_flags=LAPTOP.cpu_flags | {"avx512f"})) == ""


def test_a_build_is_refused_where_it_cannot_run() -> None:
    needs = platform_json(LAPTOP, portable=False)
    assert "Darwin" in refuse_platform(needs, MAC)
    assert "glibc 2.36" in refuse_platform(needs, replace(LAPTOP, glibc=(2, 31)))
    old = replace(LAPTOP, cpu_flags=frozenset({"sse2"}))
    assert "lacks avx2, fma" in refuse_platform(needs, old)
    assert refuse_platform(platform_json(LAPTOP, portable=True), old) == ""


def test_versions_that_the_table_lacks_are_looked_up_newest_only() -> None:
    known = pins.shipped()
    name = known.fallback[0]
    assert missing(known, name, ("0.2.1", "0.3.35", "0.3.36", "0.3.37")) == ("0.3.37",)
    many = tuple(f"0.4.{i}" for i in range(100))
    assert len(missing(known, name, many)) == 30


def test_the_commit_is_found_in_the_beginning_of_an_archive() -> None:
    header = b"x/.git/modules/vendor/llama.cpp/HEAD" + b"\0" * 400 + b"0" * 20 + b"\0" * 60
    found = HEAD.search(header + b"ab" * 20 + b"\n")
    assert found is not None
    assert found.group(1) == b"ab" * 20


def test_the_tables_entries_can_be_written_and_read_again() -> None:
    known = pins.shipped()
    release = f'[release]\nurl = "{known.url}"\ntag = "{known.tag}"\nnumber = {known.number}\n'
    release += f'commit = "{known.commit}"\n'
    head = f'{release}[fallback]\npackage = "{known.fallback[0]}"\n'
    again = pins.parse(head + f'version = "{known.fallback[1]}"\n\n' + pins.packages_toml(known.packages))
    assert again == known
