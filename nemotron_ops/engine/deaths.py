"""Finds why a llama-server ended: one cause and one next step from its exit code and last log lines. Pure.

All failures at load have exit code 1, so the log decides (`death_table`); signals without a known text are classified
by number. Once the process was ready, clients write into its log, so the exit code and the kernel alone decide: no
such death is hopeless, and no text of the log is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemotron_ops.engine.death_table import GPU_ERRORS, TABLE, Cause
from nemotron_ops.engine.flag_lists import REPLACED
from nemotron_ops.engine.flags import Flags

TAIL_LINES = 20
LINE_CHARS = 500  # of one line that are read: a longer line holds a request, not a cause
SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
}


# Deaths that a restart of the same command line cannot cure.
HOPELESS = frozenset(
    {
        Cause.BAD_FLAG,
        Cause.BAD_VALUE,
        Cause.MODEL_MISSING,
        Cause.MODEL_TRUNCATED,
        Cause.MODEL_CORRUPT,
        Cause.UNKNOWN_ARCHITECTURE,
        Cause.ILLEGAL_INSTRUCTION,
        Cause.BINARY_MISSING,
        Cause.DEVICE_MISSING,
    }
)
SEGFAULTS = (-11, 139)
ABORTS = (-6, 134, None)  # None: the exit of a process that was not our child
GPU_HINT = "look for Xid lines in `dmesg`; if it happens again, reset the GPU or reboot"
MEMORY = frozenset({Cause.HOST_MEMORY, Cause.DEVICE_MEMORY, Cause.OOM_KILLER})


@dataclass(frozen=True, kw_only=True)
class Death:
    """`how` is the exit code or signal in words, `what` the cause in one line, `hint` the next step, if known."""

    cause: Cause
    how: str
    what: str
    hint: str = ""
    tail: tuple[str, ...] = ()
    served: bool = False  # the process had been ready

    @property
    def hopeless(self) -> bool:
        return self.cause in HOPELESS and not self.served

    @property
    def memory(self) -> bool:
        return self.cause in MEMORY

    @property
    def line(self) -> str:
        """Cause and exit in one line: `out of device memory: allocating 20 GiB … (exited with code 1)`."""
        return f"{self.what} ({self.how})"


def explain(
    returncode: int | None,
    log: Sequence[str],
    *,
    oom_killed: bool = False,
    flags: Flags | None = None,
    served: bool = False,
) -> Death:
    """The Death of a process with `returncode` (negative for a signal, None if unknown) and its last `log` lines.

    `oom_killed` is the kernel's verdict (cgroup or dmesg). `flags` of the binary give the nearest spelling of a bad
    flag. `served`: the process had been ready, so lines of the log may be a client's.
    """
    death = _explain(returncode, readable(log), oom_killed=oom_killed, flags=flags, served=served)
    return replace(death, served=served)


def readable(log: Sequence[str]) -> list[str]:
    """The part of each line that is read."""
    return [line[:LINE_CHARS] for line in log]


def _explain(
    returncode: int | None, log: Sequence[str], *, oom_killed: bool, flags: Flags | None, served: bool
) -> Death:
    how = in_words(returncode)
    tail = tuple(log[-TAIL_LINES:])
    if oom_killed:
        return Death(
            cause=Cause.OOM_KILLER,
            how=how,
            what="killed by the kernel: out of memory",
            tail=tail,
            hint="give it less context or more memory; `nemotron-ops plan` shows what fits",
        )
    if returncode in (-9, 137, -15, -2, -1):  # a signal from outside: earlier lines of the log are no cause
        return _by_code(returncode, how, tail)
    if served:
        return _gpu_error(returncode, how, log) or _by_code(returncode, how, tail, quote=False)
    crashed = returncode in SEGFAULTS
    for row in TABLE:
        if crashed and row.cause in MEMORY:
            continue  # a failed allocation throws or aborts
        for match in filter(None, (re.search(row.pattern, line) for line in log)):
            groups = [g.strip() for g in match.groups()]
            hint = row.hint or _near(groups[0], flags)
            return Death(cause=row.cause, how=how, what=row.what.format(*groups), hint=hint, tail=tail)
    return _by_code(returncode, how, tail)


def _gpu_error(returncode: int | None, how: str, log: Sequence[str]) -> Death | None:
    """The GPU error that llama.cpp reported in a line of its own before it aborted."""
    if returncode not in ABORTS:
        return None
    for pattern, text in GPU_ERRORS:
        if any(re.match(pattern, line) for line in log):
            what = f"the GPU driver reported {text}"
            return Death(cause=Cause.GPU_ERROR, how=how, what=what, hint=GPU_HINT, tail=tuple(log[-TAIL_LINES:]))
    return None


def in_words(returncode: int | None) -> str:
    """`exited with code 1`, `ended by signal 11 (SIGSEGV)`; codes above 128 are signals, as shells report them."""
    if returncode is None:
        return "ended without a supervisor"
    if returncode < 0 or returncode > 128:
        number = -returncode if returncode < 0 else returncode - 128
        return f"ended by signal {number}" + (f" ({SIGNALS[number]})" if number in SIGNALS else "")
    return f"exited with code {returncode}"


def _by_code(returncode: int | None, how: str, tail: tuple[str, ...], *, quote: bool = True) -> Death:
    """The cause by exit code or signal. `quote`: the last line of the log may be quoted."""
    number = 0 if returncode is None else -returncode if returncode < 0 else max(0, returncode - 128)
    if returncode == 127:
        return Death(
            cause=Cause.BINARY_MISSING,
            how=how,
            what="llama-server is missing or lacks a library",
            tail=tail,
            hint="build it again with `nemotron-ops build --force`",
        )
    match number:
        case 4:
            return Death(
                cause=Cause.ILLEGAL_INSTRUCTION,
                how=how,
                what="this CPU lacks an instruction the build uses",
                tail=tail,
                hint="build again on this machine: `nemotron-ops build --force`",
            )
        case 9:
            return Death(
                cause=Cause.KILLED,
                how=how,
                what="killed from outside, or by the kernel for lack of memory",
                tail=tail,
                hint='see `dmesg` for "Out of memory"',
            )
        case 1 | 2 | 15:
            return Death(cause=Cause.KILLED, how=how, what="stopped from outside", tail=tail)
        case 6 | 7 | 8 | 11:
            return Death(
                cause=Cause.CRASH,
                how=how,
                what="llama-server crashed",
                tail=tail,
                hint="a bug in llama.cpp or a bad build: try `nemotron-ops builds rollback`",
            )
        case _:
            pass
    if returncode == 0:
        return Death(cause=Cause.STOPPED, how=how, what="llama-server ended normally", tail=tail)
    return Death(cause=Cause.UNKNOWN, how=how, what=(_last(tail) if quote else "") or "unknown cause", tail=tail)


def _near(flag: str, flags: Flags | None) -> str:
    if replaced := REPLACED.get(flag):
        return replaced
    near = flags.near(flag) if flags else ()
    return f"did you mean {', '.join(near)}?" if near else "see `llama-server --help` of the current build"


def _last(tail: Sequence[str]) -> str:
    said = [line.strip() for line in tail if line.strip()]
    return f"last log line: {said[-1][:200]}" if said else ""
