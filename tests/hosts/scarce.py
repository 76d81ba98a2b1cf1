"""Too little memory for some processes of a host: a memory cgroup (v1) outside the host.

The host's systemd cannot limit memory itself where the machine has that controller in the v1 hierarchy.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.stages.hosts import Host

MOST_STEPS = 1024
NEXT = 400  # below an engine's score, above all others
# Fills unreclaimable memory, in a file on tmpfs, until the kernel has killed a process. If the memory of that process
# is not yet free, the kernel kills a second one: by its score, this program itself.
FILL = """
import os, sys
control, path, steps = sys.argv[1:]
with open(path, "wb", buffering=0) as file:
    os.unlink(path)
    for _ in range(int(steps)):
        file.write(bytes(1 << 20))
        if "oom_kill 0" not in open(control).read():
            break
"""


@dataclass(frozen=True, kw_only=True)
class Scarce:
    """A memory cgroup, and the one that its processes came from."""

    folder: Path
    home: Path  # the processes' own cgroup

    def take(self, pid: int) -> None:
        """Count what `pid` and its later children allocate from now on."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def run_out(self, *, left_bytes: int) -> int:
        """Use up all but `left_bytes` of memory; returns how many processes the kernel has killed.

        A score is a share of the limit: for scores to outweigh the processes' own memory, `left_bytes` must be larger.
        """
        used = int((self.folder / "memory.usage_in_bytes").read_text())
        limit, control = self.folder / "memory.limit_in_bytes", self.folder / "memory.oom_control"
        limit.write_text(str(used + left_bytes))
        words = [sys.executable, "-c", FILL, str(control), f"/dev/shm/{self.folder.name}", str(MOST_STEPS)]
        own = f"echo $$ > {self.folder}/cgroup.procs; echo {NEXT} > /proc/$$/oom_score_adj"
        subprocess.run(["sh", "-c", f'{own}; exec "$@"', "sh", *words], check=False, timeout=120)
        limit.write_text("-1")  # or the restart of the killed process might get another one killed
        found = re.search(r"oom_kill (\d+)", control.read_text())
        assert found
        return int(found.group(1))


@contextmanager
def scarce(host: Host) -> Iterator[Scarce]:
    """An empty cgroup; at the end its processes return to their own."""
    own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
    assert own, "memory is limited by cgroup v2 here: limit the host's own cgroup instead"
    home = Path("/sys/fs/cgroup/memory") / own.group(1).lstrip("/")
    home = home if home.is_dir() else Path("/sys/fs/cgroup/memory")
    folder = home / f"nmt-{host.name}-oom"
    folder.mkdir()
    try:
        yield Scarce(folder=folder, home=home)
    finally:
        while pids := (folder / "cgroup.procs").read_text().split():  # processes may be added meanwhile
            for pid in pids:
                with suppress(ProcessLookupError):  # it has just ended
                    (home / "cgroup.procs").write_text(pid)
        folder.rmdir()
