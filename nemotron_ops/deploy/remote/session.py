"""Holds a target's lock, and runs steps one after another through one ssh channel. Subprocess."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from nemotron_ops.deploy.remote.ssh import Connection, unreachable
from nemotron_ops.deploy.steps.facts import Site
from nemotron_ops.deploy.steps.probe import facts_script, parse_facts, printable
from nemotron_ops.deploy.steps.scripts import prelude, read_hold
from nemotron_ops.errors import DeployError

LOCKED = 75  # exit code of flock if the lock is taken (EX_TEMPFAIL)
MARK = "\x1e"  # record separator: starts the line that ends a step


def locked_session(connection: Connection, site: Site, *, force: bool = False, verb: str = "deploy to") -> Session:
    """A session that holds the target's deploy lock.

    Raises Locked, with its holder; and, unless `force`, DeployError if an operator has locked the target.
    """
    session = Session(connection, site.root / ".lock", prelude=prelude(site.scope))
    try:
        # read inside the session, so that no operator can lock the target between this and the first step
        _, hold = session.run(read_hold(site))
        if not force:
            check_hold(connection.target, "".join(hold), verb)
    except Locked as exc:
        session.close()
        facts = parse_facts(connection.sh(facts_script(site.scope)).stdout)
        raise Locked(connection.target, describe_lock(facts.lock)) from exc
    except BaseException:
        session.close()
        raise
    return session


def check_hold(target: str, hold: str, verb: str) -> None:
    """Raise DeployError if `hold`, the JSON of an operator's lock, is not empty."""
    if hold:
        raise DeployError(
            f"cannot {verb} {target}: it is locked: {describe_lock(hold)}", hint=f"nemotron-ops deploy unlock {target}"
        )


def describe_lock(text: str) -> str:
    """`alice since 2026-01-01T12:00Z: upgrade of the driver`, from the JSON of a lock."""
    try:
        value = json.loads(text)
        return printable(f"{value['who']} since {value['since']}: {value['why'] or 'no reason given'}")
    except (ValueError, KeyError, TypeError):
        return printable(text)


class Session:
    """One ssh channel that holds the target's deploy lock and runs steps one after another.

    Steps go through the channel that holds the lock, so a client without the lock cannot run any: when the connection
    dies, the shell on the target ends its current step, reads end-of-file and exits, which releases the lock.
    """

    def __init__(self, connection: Connection, lock: PurePosixPath, *, prelude: str = "") -> None:
        self.target = connection.target
        flock = f"exec flock -n -o -E {LOCKED} {shlex.quote(str(lock))} bash --noprofile --norc"
        script = f"mkdir -p {shlex.quote(str(lock.parent))} && {flock}"
        self._child = subprocess.Popen(
            connection.argv(*connection.as_root("sh", "-c", script)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,  # Ctrl-C must not reach ssh: the step on the target ends first
        )  # fmt: skip
        self._count = 0
        self._prelude = prelude
        self._live = connection.live
        self._live.append(self._child)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, script: str, *, on_line: Callable[[str], None] | None = None) -> tuple[int, tuple[str, ...]]:
        """Run `script` with bash -euo pipefail; its exit code and output (stderr too), each line to `on_line`.

        Raises DeployError if the lock is taken or the connection is lost.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._count += 1
        end = f"{MARK}{self._count} "
        body = shlex.quote(self._prelude + script)
        try:
            self._child.stdin.write(
                f"bash -euo pipefail -c {body} </dev/null 2>&1; printf '\\n\\036%s %s\\n' {self._count} $?\n"
            )
            self._child.stdin.flush()
        except BrokenPipeError:
            self._lost()
        lines: list[str] = []
        for raw in self._child.stdout:
            line = raw.rstrip("\n")
            if line.startswith(end):
                return int(line.removeprefix(end)), tuple(_without_last_blank(lines))
            lines.append(line)
            if on_line and line:
                on_line(line)
        self._lost()
        raise AssertionError  # _lost raises

    def close(self) -> None:
        """Release the lock. A step that is running on the target ends first."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._child.stderr.close()
        if self._child in self._live:
            self._live.remove(self._child)

    def _lost(self) -> None:
        assert self._child.stderr is not None
        code, stderr = self._child.wait(), self._child.stderr.read()
        if code == LOCKED:
            raise Locked(self.target)
        if code == 255:
            raise unreachable(self.target, stderr)
        raise DeployError(
            f"cannot continue on {self.target}: the connection's shell ended with exit code {code}",
            log_tail=tuple(stderr.splitlines()[-5:]),
        )


class Locked(DeployError):
    """Another deploy to this target is running."""

    def __init__(self, target: str, holder: str = "") -> None:
        super().__init__(
            f"cannot deploy to {target}: another deploy is under way there" + (f" ({holder})" if holder else ""),
            hint=f"wait for it, or see what it does: nemotron-ops deploy status {target}",
        )


def _without_last_blank(lines: list[str]) -> Iterable[str]:
    return lines[:-1] if lines and not lines[-1] else lines
