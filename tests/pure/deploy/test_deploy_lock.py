"""The lock of the bundles' dependencies: what it holds, and which files it lets into a bundle."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from nemotron_ops.deploy.artifacts.bundle import Platform, shipped_lock
from nemotron_ops.deploy.artifacts.lock import check_files, locked_for
from nemotron_ops.errors import DeployError

GPU_HOST = Platform(python=(3, 12), machine="x86_64", glibc=(2, 36))
LOCK = """\
# made by a test
click==8.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:cc
old==1.0 ; python_full_version < '3.12' --hash=sha256:dd
"""


def test_the_shipped_lock_satisfies_every_dependency_of_the_program() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    locked = {}
    for one in locked_for(shipped_lock(), GPU_HOST.environment):
        name, _, version = one.requirement.partition("==")
        locked[canonicalize_name(name)] = Version(version)
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), f"{wanted}: run make lock"
    assert "pip" in locked


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_locked_dependency_has_one_version_and_hashes(machine: str) -> None:
    platform = Platform(python=(3, 11), machine=machine, glibc=(2, 28))
    found = locked_for(shipped_lock(), platform.environment)
    names = [one.requirement.partition("==")[0] for one in found]
    assert len(names) == len(set(names)) > 30
    assert all(len(digest) == 64 for one in found for digest in one.sha256s)
    assert all(one.sha256s for one in found)


def test_markers_are_those_of_the_target() -> None:
    assert [one.requirement for one in locked_for(LOCK, GPU_HOST.environment)] == ["click==8.1"]
    older = Platform(python=(3, 11), machine="x86_64", glibc=(2, 36))
    assert [one.line for one in locked_for(LOCK, older.environment)] == [
        "click==8.1 --hash=sha256:aa --hash=sha256:bb",
        "old==1.0 --hash=sha256:dd",
    ]


def test_a_file_that_is_not_the_locked_one_is_refused_by_name() -> None:
    locked = locked_for(LOCK, GPU_HOST.environment)
    check_files({"click-8.1-py3-none-any.whl": "bb"}, locked, where="/cache/wheels-1")
    with pytest.raises(
        DeployError, match=r"from /cache/wheels-1: click-8\.1.*whl there: not the locked file"
    ) as caught:
        check_files({"click-8.1-py3-none-any.whl": "ee"}, locked, where="/cache/wheels-1")
    assert caught.value.hint == "have it fetched again: rm -r /cache/wheels-1"
    with pytest.raises(DeployError, match=r"click==8\.1 missing there"):
        check_files({}, locked, where="/cache/wheels-1")
