"""An endpoint of its own for a measurement: `serve` in a private home, gone at the end. Processes, disk.

The private home links the installation's builds, models and recipes and has its own state, sockets and choice of
build, so neither a running supervisor nor its wish is touched. It has no keys, and listens on loopback only. On Linux
the supervisor gets SIGTERM when this process ends, however it ends, and stops its llama-servers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.builds.store import store
from nemotron_ops.errors import EngineError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.compose import compose
from nemotron_ops.operations.detach import serve_argv, wait_ready
from nemotron_ops.operations.wish import Composed, ModelWish, Wish
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.progress import Step

if TYPE_CHECKING:
    from nemotron_ops.supervisor.snapshot import Snapshot

STOP_S = 60.0
TERM_WITH_US = """import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):  # the parent ended before the request
    sys.exit("its parent has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A ready endpoint: its base URL, and what was composed for it."""

    url: str
    composed: Composed


@contextmanager
def started(names: tuple[str, ...], here: Installation, *, build: str = "") -> Iterator[Started]:
    """Serve the recipes `names` with the current build, or with `build`, until the end of the block.

    Builds and fetches first, as `serve` does. Raises what `serve` raises, EngineError if it does not become ready.
    """
    home = Path(tempfile.mkdtemp(prefix="nemotron-ops-measure-"))
    try:
        port = _free_port()
        chosen = store.find(here.layout, build) if build else None
        layout, env = private_home(home, here.layout, here.env)
        if chosen is not None:
            store.use(layout, chosen)
        wish = Wish(models=tuple(ModelWish(target=n) for n in names), flags={"host": "127.0.0.1", "port": port})
        own = replace(here, layout=layout, env=env) if chosen else here
        composed = compose(wish, own)
        if chosen is None and (now := store.current(here.layout)) is not None:
            store.use(layout, now)
        words = [*names, "--host", "127.0.0.1", "--port", str(port)]
        with _child(serve_argv(words, (), composed), home, env) as (child, log):
            wait_ready(layout, child, log, on_snapshot=_progress_of(here))
            yield Started(url=f"http://127.0.0.1:{port}/v1", composed=composed)
            if child.poll() is not None:
                raise EngineError(f"cannot go on measuring: the supervisor ended with {child.returncode}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(layout_of(home, here.env).runtime, ignore_errors=True)  # outside of a home with a long path


def layout_of(home: Path, env: Mapping[str, str]) -> Layout:
    """The layout of a private installation in `home`."""
    return user_layout(_private_env(home, env), uid=os.getuid())


def private_home(home: Path, of: Layout, env: Mapping[str, str]) -> tuple[Layout, dict[str, str]]:
    """The layout of a private installation in `home` that shares what is large, and the environment that selects it."""
    layout, own_env = layout_of(home, env), _private_env(home, env)
    for folder in (layout.builds, layout.config, layout.state, layout.cache.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for build in store.listed(of):
        (layout.builds / build.id).symlink_to(build.path)
    for shared, own in ((of.models, layout.models), (of.toolchains, layout.toolchains), (of.cache, layout.cache)):
        shared.mkdir(parents=True, exist_ok=True)
        own.symlink_to(shared)
    for entry in of.config.iterdir() if of.config.is_dir() else ():
        if entry.name != "keys.json":  # the endpoint would ask for one
            (layout.config / entry.name).symlink_to(entry)
    return layout, own_env


@contextmanager
def _child(argv: list[str], home: Path, env: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = home / "supervisor.log"
    tied = [sys.executable, "-IS", "-c", TERM_WITH_US, str(os.getpid())] if sys.platform == "linux" else []
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [*tied, *argv], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, env=dict(env)
        )
    try:
        yield child, log
    finally:
        for _ in range(2):  # the second SIGTERM skips the drain
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                child.wait(STOP_S)
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            child.kill()
            child.wait()


def _private_env(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if not k.startswith("NEMOTRON_OPS_")} | {"NEMOTRON_OPS_HOME": str(home)}


def _progress_of(here: Installation) -> Callable[[Snapshot], None]:
    def show(snapshot: Snapshot) -> None:
        total = len(snapshot.instances)
        ready = sum(str(i.state) == "ready" for i in snapshot.instances)
        if total:
            here.report(Step(what="start", done=ready, total=total, unit="instances"))

    return show


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
