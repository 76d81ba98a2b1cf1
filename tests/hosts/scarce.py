"""Too little memory for some processes of a host: a memory cgroup (v1) on the machine outside.

The hosts' systemd cannot limit memory itself where the machine keeps that controller in the old hierarchy.
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
NEXT = 400  # below an engine's score, above everybody else's
# fills memory that nobody can take back, in a file without a disk, until the kernel has killed somebody for it. If
# it finds the memory of the killed not yet free, it kills a second one: that is this process itself, by its score
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
    """A memory cgroup outside of which its processes' memory cannot grow."""

    folder: Path
    home: Path  # where processes were before

    def take(self, pid: int) -> None:
        """What `pid` and its later children allocate from now on counts here."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def run_out(self, *, left_bytes: int) -> int:
        """Leave so much, and use it up; how many processes the kernel has killed.

        A score is a share of what there is: to count more than what the processes have, `left_bytes` is larger.
        """
        used = int((self.folder / "memory.usage_in_bytes").read_text())
        limit, control = self.folder / "memory.limit_in_bytes", self.folder / "memory.oom_control"
        limit.write_text(str(used + left_bytes))
        words = [sys.executable, "-c", FILL, str(control), f"/dev/shm/{self.folder.name}", str(MOST_STEPS)]
        own = f"echo $$ > {self.folder}/cgroup.procs; echo {NEXT} > /proc/$$/oom_score_adj"
        subprocess.run(["sh", "-c", f'{own}; exec "$@"', "sh", *words], check=False, timeout=120)
        limit.write_text("-1")  # or who is started in place of the killed one might cost another its life
        found = re.search(r"oom_kill (\d+)", control.read_text())
        assert found
        return int(found.group(1))


@contextmanager
def scarce(host: Host) -> Iterator[Scarce]:
    """An empty cgroup; at the end its processes are back where they came from."""
    own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
    assert own, "memory is limited by cgroup v2 here: limit the host's own cgroup instead"
    home = Path("/sys/fs/cgroup/memory") / own.group(1).lstrip("/")
    home = home if home.is_dir() else Path("/sys/fs/cgroup/memory")
    folder = home / f"nmt-{host.name}-oom"
    folder.mkdir()
    try:
        yield Scarce(folder=folder, home=home)
    finally:
        while pids := (folder / "cgroup.procs").read_text().split():  # those that have come meanwhile, too
            for pid in pids:
                with suppress(ProcessLookupError):  # it ended just now
                    (home / "cgroup.procs").write_text(pid)
        folder.rmdir()
