"""Runs commands to their end. Subprocess.

Long-running children (llama-server, the gateway) are started by `processes.process`.
"""

from __future__ import annotations

import codecs
import os
import re
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 200
END_S = 2.0  # for the clean-up of a command after SIGTERM
CHUNK_BYTES = 65536
# The first entry of a child's module path is then no folder of the user: `./click.py` is not what `import click` runs.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # for the environment: the children of a child get it, too
LINE_END = re.compile(r"\r\n|\n|\r(?!$)")  # progress output that overwrites itself ends with \r


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that has ended. `returncode` is negative for a signal (-4 is SIGILL).

    `stalled`: it was killed because it printed nothing for too long.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    stalled: bool = False

    @property
    def ok(self) -> bool:
        return self.returncode == 0


class _Stalled(Exception):
    """A command printed nothing for longer than allowed."""


def python_argv(module: str, *words: str) -> tuple[str, ...]:
    """The command that runs `module` with this interpreter, and imports nothing from the present folder (`-P`)."""
    return (sys.executable, "-P", "-m", module, *words)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    stdin: str | None = None,
) -> Finished:
    """Run `argv` and return what it printed; a missing program ends with 127, a time-out with 124.

    `env` replaces the environment (None inherits it). A failure of the command itself raises nothing.
    """
    words = tuple(str(a) for a in argv)
    try:
        done = subprocess.run(
            words, cwd=cwd, env=None if env is None else dict(env), timeout=timeout_s, input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    except OSError as exc:
        return _not_started(words, exc)
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
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run `argv` with stdout and stderr as one stream of lines, each given to `on_line` as it comes.

    With `log`, every line is also appended to that file. The command gets a process group of its own; it is ended with
    all its children when the caller is interrupted (Ctrl-C) or no output comes for `stall_s`. `stdout` of the result
    holds the last lines. A program that cannot be started ends with 127 or 126, as in `run`. `pass_fds` stay open in
    the command: a lock among them is held until the last of its processes has ended, also if this process is killed.
    """
    words = tuple(str(a) for a in argv)
    try:
        child = subprocess.Popen(
            words, cwd=cwd, env=None if env is None else dict(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, process_group=0,
            pass_fds=pass_fds,
        )  # fmt: skip
    except OSError as exc:
        return _not_started(words, exc)
    assert child.stdout is not None
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    sink = log.open("a", encoding="utf-8") if log else None
    stalled = False
    try:
        for line in _lines(child.stdout.fileno(), stall_s):
            if sink:
                sink.write(line + "\n")
                sink.flush()  # another process may follow this log
            tail.append(line)
            on_line(line)
    except _Stalled:
        stalled = True
        end_tree(child)
    except BaseException:
        end_tree(child)
        raise
    finally:
        child.stdout.close()
        if sink:
            sink.close()
    returncode = child.wait()
    return Finished(argv=words, returncode=returncode, stdout="\n".join(tail), stderr="", stalled=stalled)


def end_tree(child: subprocess.Popen[bytes]) -> None:
    """End `child`, the leader of a process group, and all its descendants.

    Descendants in other groups are included: ninja gives each compiler one of its own. SIGTERM lets the command end
    them and delete incomplete files; processes that remain after END_S are killed.
    """
    import psutil

    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(child.pid).children(recursive=True)
    try:
        kill_group(child.pid, signal.SIGTERM)
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            kill_group(child.pid)
            child.wait()
        for process in started:
            with suppress(psutil.Error):
                process.kill()


def kill_group(pgid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Send `sig` to a whole process group, if it still exists."""
    try:
        os.killpg(pgid, sig)
    except ProcessLookupError:
        return


def _lines(fd: int, stall_s: float | None) -> Iterator[str]:
    """Lines from `fd` until its end, split at \\n and \\r. Raises _Stalled if nothing comes for `stall_s`."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest = ""
    with selectors.DefaultSelector() as ready:
        ready.register(fd, selectors.EVENT_READ)
        while True:
            if not ready.select(stall_s):
                raise _Stalled
            chunk = os.read(fd, CHUNK_BYTES)
            *lines, rest = LINE_END.split(rest + decode(chunk, final=not chunk))
            yield from lines
            if not chunk:
                break
    if rest:
        yield rest


def _not_started(words: tuple[str, ...], exc: OSError) -> Finished:
    code = 127 if isinstance(exc, FileNotFoundError) else 126
    return Finished(argv=words, returncode=code, stdout="", stderr=str(exc))


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""
