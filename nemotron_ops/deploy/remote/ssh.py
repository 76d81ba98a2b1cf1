"""OpenSSH's client: one command, one file (one long session: `session`). Subprocess, disk.

The user's own ssh configuration decides how a target is reached (jump hosts, agent, user); what is fixed here is that
nobody is asked anything (BatchMode) and that host keys are checked. All connections to a target share one
(ControlMaster), so that only the first one pays for the handshake.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nemotron_ops.errors import DeployError
from nemotron_ops.proc import Finished, kill_group, run
from nemotron_ops.progress import Report, Step

CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach one target. `sudo` runs everything there as root."""

    target: str
    config: Path | None = None
    control: Path | None = None  # folder for the shared connection's socket
    sudo: bool = False
    live: list[subprocess.Popen[str]] = field(default_factory=list, compare=False, repr=False)  # sessions, to be cut

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

    def cut(self) -> None:
        """Take the connection away from whoever uses it in another thread; what runs over there ends its step."""
        for child in list(self.live):
            kill_group(child.pid)  # a jump host's connection is a child of ssh

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
