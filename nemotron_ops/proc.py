"""The one place that runs a command to its end. Subprocess.

Long-running children (llama-server, the gateway) are the supervisor's business, not this module's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 200


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that has ended. `returncode` is negative for a signal (-4 is SIGILL)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    stdin: str | None = None,
) -> Finished:
    """Run `argv` and return what it printed; a missing program ends with 127, a time-out with 124.

    `env` replaces the environment (None inherits it). Nothing is raised for a failure of the command itself.
    """
    words = tuple(str(a) for a in argv)
    try:
        done = subprocess.run(
            words, cwd=cwd, env=None if env is None else dict(env), timeout=timeout_s, input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    except FileNotFoundError as exc:
        return Finished(argv=words, returncode=127, stdout="", stderr=str(exc))
    except PermissionError as exc:
        return Finished(argv=words, returncode=126, stdout="", stderr=str(exc))
    except subprocess.TimeoutExpired as exc:
        return Finished(argv=words, returncode=124, stdout=_text(exc.stdout), stderr=_text(exc.stderr))
    return Finished(argv=words, returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


def run_lines(
    argv: Sequence[str | Path],
    *,
    on_line: Callable[[str], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    stall_s: float | None = None,
) -> Finished:
    """Run `argv` with stdout and stderr as one stream of lines, each given to `on_line` as it comes.

    With `log`, every line is also appended to that file. The command gets a process group of its own, which is
    killed whole when the caller is interrupted (Ctrl-C) or no line comes for `stall_s`. `stdout` of the result
    holds the last lines.
    """
    words = tuple(str(a) for a in argv)
    child = subprocess.Popen(
        words, cwd=cwd, env=None if env is None else dict(env), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1, process_group=0,
    )  # fmt: skip
    assert child.stdout is not None
    tail: list[str] = []
    sink = log.open("a", encoding="utf-8") if log else None
    watch = _Watch(child.pid, stall_s)
    try:
        for raw in child.stdout:
            watch.touch()
            line = raw.rstrip("\n")
            if sink:
                sink.write(raw)
            tail.append(line)
            del tail[:-TAIL_LINES]
            on_line(line)
        returncode = child.wait()
    except BaseException:
        kill_group(child.pid)
        child.wait()
        raise
    finally:
        watch.cancel()
        child.stdout.close()
        if sink:
            sink.close()
    return Finished(argv=words, returncode=returncode, stdout="\n".join(tail), stderr="")


def kill_group(pgid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Send `sig` to a whole process group; a group that is gone already is fine."""
    try:
        os.killpg(pgid, sig)
    except ProcessLookupError:
        return


class _Watch:
    """Kills a process group that has been silent for `stall_s` seconds."""

    def __init__(self, pgid: int, stall_s: float | None) -> None:
        self._pgid, self._stall_s = pgid, stall_s
        self._timer: threading.Timer | None = None
        self.touch()

    def touch(self) -> None:
        self.cancel()
        if self._stall_s is not None:
            self._timer = threading.Timer(self._stall_s, kill_group, (self._pgid,))
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""
