"""Runs one llama-server during a `with` block: for self-tests and measurements. Subprocess, httpx.

The supervisor does not use this: its processes must outlive it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemotron_ops.engine.args import server_argv
from nemotron_ops.engine.client import Client
from nemotron_ops.engine.deaths import explain
from nemotron_ops.engine.env import child_env
from nemotron_ops.engine.health import Health
from nemotron_ops.errors import EngineError
from nemotron_ops.proc import kill_group

POLL_S = 0.02
STOP_S = (3.0, 1.0)  # after SIGTERM, after the second SIGTERM; then SIGKILL
# On Linux the server dies with this process, also if it is killed: a short Python program requests that signal and then
# replaces itself by the server. Code between fork and exec (preexec_fn) may hang a process with threads.
DIES_WITH_US = """import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):  # the parent ended before the request
    sys.exit("its parent has ended")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores both signals, and exec keeps that
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def started(
    *,
    binary: Path,
    model: Path,
    workdir: Path,
    settings: Mapping[str, Any] | None = None,
    extra: Sequence[str] = (),
    ready_timeout_s: float = 120,
    alias: str = "selftest",
    env: Mapping[str, str] | None = None,
    adapters: Sequence[Path] = (),
) -> Iterator[Client]:
    """A ready llama-server with `settings` and `extra` flags, and a Client to it; stopped at the end of the block.

    LoRA `adapters` are loaded at scale 0. On Linux it dies with the thread that started it, however that thread ends.

    On Linux it dies with the thread that started it, however that thread ends.

    Its log is `workdir/llama-server.log`. Raises EngineError with the cause of death and the last log lines if it
    does not become ready, or has died by the end of the block.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix="nemotron-ops-"))  # mode 0700; a socket's path has at most 107 bytes
    log = workdir / "llama-server.log"
    try:
        socket, key = private / "s.sock", secrets.token_urlsafe(24)
        (private / "key").touch(mode=0o600)
        (private / "key").write_text(key + "\n")
        argv = server_argv(
            binary=binary,
            model=model,
            socket=socket,
            api_key_file=private / "key",
            alias=alias,
            settings=settings or {},
            extra=extra,
        )
        words = (word for path in adapters for word in ("--lora-scaled", f"{path}:0.0"))
        argv = (*argv, *words)
        child = _spawn(argv, log=log, env=child_env(os.environ if env is None else env, home=private))
        try:
            with Client(socket=socket, api_key=key) as client:
                _wait_ready(child, client, log=log, timeout_s=ready_timeout_s)
                yield client
                if child.poll() is not None:
                    raise _died(child.returncode, log)
        finally:
            _stop(child)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _spawn(argv: tuple[str, ...], *, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    if (cause := _not_runnable(argv[0])) is not None:
        raise EngineError(f"cannot start {argv[0]}: {cause}")
    tied = (sys.executable, "-IS", "-c", DIES_WITH_US, str(os.getpid())) if sys.platform == "linux" else ()
    with log.open("wb") as out:
        try:
            return subprocess.Popen(
                (*tied, *argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        except OSError as exc:
            raise EngineError(f"cannot start {argv[0]}: {exc.strerror or exc}") from exc


def _not_runnable(program: str) -> str | None:
    if not os.path.exists(program):
        return "no such file or directory"
    return None if os.access(program, os.X_OK) else "permission denied"


def _wait_ready(child: subprocess.Popen[bytes], client: Client, *, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while client.health() is not Health.OK:
        if child.poll() is not None:
            raise _died(child.returncode, log)
        if time.monotonic() > deadline:
            raise EngineError(
                f"cannot start llama-server: not ready after {timeout_s:g} s", log_tail=tuple(_lines(log)[-20:])
            )
        time.sleep(POLL_S)


def _died(returncode: int, log: Path) -> EngineError:
    death = explain(returncode, _lines(log))
    return EngineError(f"cannot run llama-server: {death.line}", hint=death.hint or None, log_tail=death.tail)


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def _stop(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM twice, then SIGKILL: the first can be lost right after readiness, or deadlock with work in flight."""
    for wait_s in STOP_S:
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
    kill_group(child.pid)
    child.wait()
