"""Boots test hosts: real systemd as PID 1 and real sshd, up in about a second.

Needs root, systemd-nspawn, mmdebstrap and the Debian mirror once (the root file system is cached). Without root no host
can be booted, and the ring is skipped; CI has root, and a missing tool is an error there.

Safe for several workers at once (`-n 2 --dist loadfile`): names are random, networks are chosen under a lock, and the
root file system and the wheels are made once, under a lock, for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nemotron_ops.files import locked
from tests.fakes.programs import need
from tests.stages.hosts import CACHE, TESTHOST, Host, Laptop, host_tool, make_laptop

PROGRAMS = ("systemd-nspawn", "mmdebstrap", "zstd", "ip", "ssh", "nsenter", "haproxy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the journals of its hosts to the report of a failed test."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Host):
                with suppress(OSError, subprocess.SubprocessError):
                    report.sections.append((f"journal of {name}", value.journal()))
    return report


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """The hosts' root file system, made once per machine."""
    need(*PROGRAMS, root=True)
    tar = CACHE / "testhost.tar.zst"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / ".rootfs.lock"):  # another worker may be at it
        if not tar.exists():
            subprocess.run([TESTHOST / "build-rootfs.sh", tar], check=True, stdin=subprocess.DEVNULL, timeout=900)
        host_tool("gc")
    return tar


@pytest.fixture(scope="module")
def new_host(rootfs: Path) -> Iterator[Callable[[], Host]]:
    """Boots a host each time it is called; all are gone at the end of the module."""
    names: list[str] = []

    def boot() -> Host:
        name = f"t{uuid.uuid4().hex[:8]}"
        names.append(name)
        return Host(name=name, info=json.loads(host_tool("up", name).splitlines()[-1]))

    yield boot
    for name in names:
        host_tool("drop", name)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of bundles, filled once per run: the folder of a run holds those of its workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def laptop(tmp_path: Path, llama_bin: Path, bundles: Path) -> Laptop:
    return make_laptop(tmp_path, llama_bin, bundles)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(check, within_s=60)`: waits until `check()` is true; polls less often than the pure ring's."""

    def wait(check: Callable[[], object], *, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not (answer := check()):
            assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
            time.sleep(0.2)

    return wait
