"""OpenSSH's client: one command, one long session of steps, one file. Subprocess, disk.

The user's own ssh configuration decides how a target is reached (jump hosts, agent, user); what is fixed here is that
nobody is asked anything (BatchMode) and that host keys are checked. All connections to a target share one
(ControlMaster), so that only the first one pays for the handshake.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nemotron_ops.errors import DeployError
from nemotron_ops.proc import Finished, run
from nemotron_ops.progress import Report, Step

LOCKED = 75  # exit code of flock when somebody else has the lock (EX_TEMPFAIL)
MARK = "\x1e"  # record separator: begins the line that ends a step
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach one target. `sudo` runs everything there as root."""

    target: str
    config: Path | None = None
    control: Path | None = None  # folder for the shared connection's socket
    sudo: bool = False

    def argv(self, *remote: str) -> tuple[str, ...]:
        """The ssh command that runs `remote` (words, quoted here) on the target."""
        return (*self.base(), "--", self.target, shlex.join(remote))

    def base(self) -> tuple[str, ...]:
        config = ("-F", str(self.config)) if self.config else ()
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
        ]
        if self.control:
            options += ["ControlMaster=auto", f"ControlPath={self.control}/%C", "ControlPersist=60"]
        return ("ssh", *config, *(word for option in options for word in ("-o", option)))

    def as_root(self, *words: str) -> tuple[str, ...]:
        return ("sudo", "-n", "--", *words) if self.sudo else words

    def sh(self, script: str, *, timeout_s: float | None = 120.0) -> Finished:
        """Run a shell script there, handed over on stdin. Raises DeployError if the target cannot be reached."""
        done = run(self.argv(*self.as_root("sh", "-s")), stdin=script, timeout_s=timeout_s)
        if done.returncode == 255:
            raise unreachable(self.target, done.stderr)
        return done

    def close(self) -> None:
        """End the shared connection."""
        if self.control:
            run((*self.base(), "-O", "exit", self.target), timeout_s=10)

    def send_file(self, source: Path, to: PurePosixPath, *, sha256: str, report: Report) -> None:
        """Put `source` at `to`, whole and proven, or not at all; a broken transfer goes on where it stopped.

        Bytes go to `to.part-HASH`; only when their sha256 is right over there does that become `to`.
        """
        part = f"{to}.part-{sha256[:16]}"
        have = self._offset(to, part, sha256)
        size = source.stat().st_size
        if have is None:
            report(Step(what=f"send {to.name}", done=size, total=size, unit="B"))
            return
        with source.open("rb") as f:
            f.seek(have)
            self._append(f.read, part, have=have, size=size, what=f"send {to.name}", report=report)
        done = self.sh(accept_script(part, str(to), sha256), timeout_s=None)
        if not done.ok:
            raise DeployError(
                f"cannot send {source.name} to {self.target}: its bytes over there have another sha256",
                hint="try again: the transfer starts afresh", log_tail=tuple(done.stderr.splitlines()[-3:]),
            )  # fmt: skip

    def _offset(self, to: PurePosixPath, part: str, sha256: str) -> int | None:
        """How many bytes of the partial file are there; None if the whole file is."""
        script = offset_script(part, str(to), sha256)
        done = self.sh(script, timeout_s=None)
        answer = done.stdout.strip()
        if not done.ok or not (answer == "whole" or answer.isdigit()):
            raise DeployError(f"cannot write {to} on {self.target}: {done.stderr.strip() or answer}")
        return None if answer == "whole" else int(answer)

    def _append(
        self, read: Callable[[int], bytes], part: str, *, have: int, size: int, what: str, report: Report
    ) -> None:
        words = self.argv(*self.as_root("sh", "-c", f"exec cat >> {shlex.quote(part)}"))
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stderr is not None
        sent = have
        try:
            while chunk := read(CHUNK):
                child.stdin.write(chunk)
                sent += len(chunk)
                report(Step(what=what, done=sent, total=size, unit="B"))
            child.stdin.close()
        except BrokenPipeError:
            pass
        except BaseException:
            child.kill()
            child.wait()
            child.stderr.close()
            raise
        stderr = child.stderr.read().decode(errors="replace")
        child.stderr.close()
        if child.wait() == 255:
            raise unreachable(self.target, stderr)
        if child.returncode:
            raise DeployError(f"cannot write {part} on {self.target}: {stderr.strip()}")


class Session:
    """One ssh channel that holds the target's deploy lock and runs steps one after another.

    Steps go through the channel that holds the lock, so whoever has lost the lock cannot do anything any more: when
    the connection dies, the shell over there ends its current step, reads end-of-file and leaves; so does the lock.
    """

    def __init__(self, connection: Connection, lock: PurePosixPath, *, prelude: str = "") -> None:
        self.target = connection.target
        flock = f"exec flock -n -o -E {LOCKED} {shlex.quote(str(lock))} bash --noprofile --norc"
        script = f"mkdir -p {shlex.quote(str(lock.parent))} && {flock}"
        self._child = subprocess.Popen(
            connection.argv(*connection.as_root("sh", "-c", script)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,  # Ctrl-C is ours to handle: the step over there ends first
        )  # fmt: skip
        self._count = 0
        self._prelude = prelude

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
        """Let go of the lock. A step that still runs over there runs to its end first."""
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

    def _lost(self) -> None:
        assert self._child.stderr is not None
        code, stderr = self._child.wait(), self._child.stderr.read()
        if code == LOCKED:
            raise Locked(self.target)
        if code == 255:
            raise unreachable(self.target, stderr)
        raise DeployError(
            f"cannot go on with {self.target}: the connection's shell ended with exit code {code}",
            log_tail=tuple(stderr.splitlines()[-5:]),
        )


class Locked(DeployError):
    """Somebody else deploys to this target right now."""

    def __init__(self, target: str, holder: str = "") -> None:
        super().__init__(
            f"cannot deploy to {target}: another deploy is under way there" + (f" ({holder})" if holder else ""),
            hint=f"wait for it, or see what it does: nemotron-ops deploy status {target}",
        )


class ControlFolder:
    """A private folder for shared connections' sockets, short enough for a unix socket's path."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nops-ssh-")

    def __enter__(self) -> Path:
        return Path(self._folder.name)

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()


def offset_script(part: str, to: str, sha256: str) -> str:
    """Prints "whole" if `to` is there and right, else how many bytes of the partial file are."""
    p, t = shlex.quote(part), shlex.quote(to)
    return f"""\
umask 077
mkdir -p "$(dirname {t})"
if [ -f {t} ] && printf '%s  %s\\n' {sha256} {t} | sha256sum -c --quiet - 2>/dev/null; then echo whole
else touch {p} && wc -c < {p}; fi
"""


def accept_script(part: str, to: str, sha256: str) -> str:
    """Give the partial file its name if its bytes are right; drop it if not."""
    p, t = shlex.quote(part), shlex.quote(to)
    return f"""\
sync {p}
if printf '%s  %s\\n' {sha256} {p} | sha256sum -c --quiet -; then mv -f {p} {t}; else rm -f {p}; exit 1; fi
"""


def unreachable(target: str, stderr: str) -> DeployError:
    """What ssh's own words mean, and what to do."""
    text = stderr.strip()
    hint = "try it by hand: ssh " + target
    if "Host key verification failed" in text or "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        why = "its host key is not the known one" if "CHANGED" in text else "its host key is not known"
        hint = f"make sure that it is the right machine, then connect once by hand: ssh {target}"
    elif "Permission denied" in text:
        why = "it does not accept our key"
        hint = f"load the key into the agent (ssh-add), or name it in ~/.ssh/config; {hint}"
    elif "Could not resolve" in text:
        why = "there is no host of that name"
    elif any(words in text for words in ("timed out", "No route to host", "Connection refused")):
        why = "nobody answers"
    else:
        why = "the connection broke"
    return DeployError(f"cannot reach {target}: {why}", hint=hint, log_tail=tuple(text.splitlines()[-3:]))


def tunnel_argv(target: str, *, config: Path | None, port: int, remote_port: int) -> tuple[str, ...]:
    """The ssh command that shows a target's loopback port on ours. A connection of its own: it is meant to last."""
    forward = f"127.0.0.1:{port}:127.0.0.1:{remote_port}"
    base = Connection(target=target, config=config).base()
    return (*base, "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, "--", target)


def address_of(target: str, *, config: Path | None) -> str:
    """The address behind a target's name, as ssh's configuration has it (`HostName`); nothing is connected."""
    done = run(("ssh", *(("-F", str(config)) if config else ()), "-G", "--", target), timeout_s=10)
    found = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("hostname ")]
    return found[0] if done.ok and found else target.rpartition("@")[2]


def sha256_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _without_last_blank(lines: list[str]) -> Iterable[str]:
    return lines[:-1] if lines and not lines[-1] else lines
