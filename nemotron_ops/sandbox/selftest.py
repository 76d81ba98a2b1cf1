"""Eight attacks on a backend of this very machine, before it is offered. Processes, disk (verdicts).

A verdict is kept with the facts that it is valid for: kernel and boot, backend and its version, this program's version,
user, Python. A failure is never kept: what refused once is tried again.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops import __version__, files
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.sandbox import reap
from nemotron_ops.sandbox.choose import Backend, Candidate, Facts
from nemotron_ops.sandbox.limits import MIB, Limits
from nemotron_ops.sandbox.session import Sandbox

LIMITS = Limits(memory_bytes=160 * MIB, work_bytes=32 * MIB, processes=32, call_s=5, first_call_s=10)
KEPT = 32  # verdicts in the file
HELD = "HELD"

Opener = Callable[[Limits], Sandbox]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Code that prints ESCAPED if it gets through; `outside` names a check of the host afterwards."""

    name: str
    about: str
    code: str
    outside: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a backend held. `wrong` names each attack that got through; `kept`: from an earlier run."""

    backend: str
    held: int
    of: int
    wrong: tuple[str, ...] = ()
    took_s: float = 0.0
    kept: bool = False

    @property
    def passed(self) -> bool:
        return self.held == self.of and not self.wrong


def _attack(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"try:\n{lines}\n    print('ESCAPED')\nexcept BaseException as e: print('{HELD}', type(e).__name__)\n"


ATTACKS = (
    Attack(name="canary", about="read a file of the host", code=_attack("assert 'canary' in open('{CANARY}').read()")),
    Attack(
        name="environment",
        about="read the environment of process 1",
        code=_attack(
            "import os\nseen = repr(dict(os.environ)).encode() + open('/proc/1/environ', 'rb').read()\n"
            "assert any(name.encode() + b'=' in seen for name in {VARIABLES})"
        ),
    ),
    Attack(
        name="control-socket",
        about="connect to a unix socket of the host",
        code=_attack("import socket\ns=socket.socket(socket.AF_UNIX)\ns.connect('{SOCKET}')"),
        outside="quiet",
    ),
    Attack(
        name="vsock",
        about="reach the hypervisor (AF_VSOCK) or the network",
        code=_attack(
            "import socket\nn=0\nfor family in (40, 2, 10, 16, 17):\n"
            "    try:\n        socket.socket(family, 1 if family != 16 else 3).close()\n        n+=1\n"
            "    except OSError: pass\nassert n"
        ),
    ),
    Attack(
        name="kill",
        about="kill a process of the same user",
        code=_attack("import os\nos.kill({VICTIM}, 9)"),
        outside="alive",
    ),
    Attack(
        name="unshare",
        about="make new namespaces",
        code=_attack(
            "import ctypes\nl=ctypes.CDLL(None)\n"
            "assert any(l.unshare(flag) == 0 for flag in (0x10000000, 0x40000000, 0x20000))"
        ),
    ),
    Attack(
        name="daemon",
        about="leave a process behind",
        code="import os\ntry:\n    pid=os.fork()\n    if pid==0:\n"
        "        try: os.setsid()\n        except OSError: pass\n"
        "        for fd in range(3): os.close(fd)\n        import time\n        time.sleep(600)\n        os._exit(0)\n"
        f"    print('{HELD}')\nexcept BaseException as e: print('{HELD}', type(e).__name__)\n",
        outside="gone",
    ),
    Attack(
        name="memory",
        about="take more memory than allowed",
        code=_attack("b=bytearray(400<<20)\nb[::4096]=b'x'*len(b[::4096])"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Bait:
    """What the attacks are after."""

    canary: Path
    socket: socket.socket
    path: str
    victim: subprocess.Popen[bytes]

    def fill(self, code: str) -> str:
        values = {"CANARY": self.canary, "SOCKET": self.path, "VICTIM": self.victim.pid, "VARIABLES": _variables()}
        for name, value in values.items():
            code = code.replace("{" + name + "}", str(value))
        return code


def verdict(candidate: Candidate, opened: Opener, facts: Facts, store: Path, *, anew: bool = False) -> Verdict:
    """Whether the backend holds all attacks here: the kept verdict, or that of a run, which takes about a second."""
    key = key_of(candidate, facts)
    if not anew and key in _kept(store):
        return Verdict(backend=candidate.backend, held=len(ATTACKS), of=len(ATTACKS), kept=True)
    found = run(candidate.backend, opened)
    if found.passed:
        with suppress(OSError):
            kept = [k for k in _kept(store) if k != key][-KEPT + 1 :]
            last = {"backend": str(found.backend), "held": found.held, "of": found.of, "boot": facts.boot}
            files.write_json(store, {"held": [*kept, key], "last": {**last, "version": __version__}}, mode=0o600)
    return found


def last_kept(store: Path, boot: str) -> Verdict | None:
    """The last verdict that was kept by this version in this boot, without a look at the machine; None without one."""
    with suppress(NemotronOpsError, OSError, KeyError, TypeError):
        last = (files.read_json(store) or {})["last"]
        if (last["boot"], last["version"]) == (boot, __version__):
            return Verdict(backend=str(last["backend"]), held=int(last["held"]), of=int(last["of"]), kept=True)
    return None


def key_of(candidate: Candidate, facts: Facts) -> str:
    """A hash of everything that a verdict depends on."""
    source = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
    parts = (
        *(candidate.backend, candidate.identity, facts.release, facts.boot, facts.machine, str(facts.uid)),
        *(__version__, source, sys.executable, sys.version),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def run(backend: str, opened: Opener) -> Verdict:
    """Hold the attacks, all in one session; one that ends it is followed by a new session."""
    started, wrong = time.monotonic(), []
    tags: list[str] = []
    with _bait() as bait, ExitStack() as stack:
        try:
            session = opened(LIMITS)
            tags.append(session.tag)
            stack.callback(lambda: session.end())
            for attack in ATTACKS:
                if session.over:
                    session = opened(LIMITS)
                    tags.append(session.tag)
                if reason := _attempt(session, attack, bait):
                    wrong.append(f"{attack.name}: {reason}")
            session.end()
            if outlived(tags):
                wrong.append("daemon: a process outlived its session")
        except NemotronOpsError as exc:
            return Verdict(backend=backend, held=0, of=len(ATTACKS), wrong=(exc.message,))
    names = {w.partition(":")[0] for w in wrong}
    return Verdict(
        backend=backend, held=len(ATTACKS) - len(names), of=len(ATTACKS), wrong=tuple(wrong),
        took_s=time.monotonic() - started,
    )  # fmt: skip


def _attempt(session: Sandbox, attack: Attack, bait: _Bait) -> str:
    """ "" if the attack was held. A sandbox that says nothing at all has not shown that it ran the code."""
    outcome = session.run("python", bait.fill(attack.code))
    if "ESCAPED" in outcome.stdout:
        return f"got through ({attack.about})"
    limited = bool(outcome.limits_hit) or session.backend == Backend.MONTY
    if HELD not in outcome.stdout and not limited:
        return f"gave no answer: {outcome.stderr.strip().splitlines()[-1:] or outcome.exit_code}"
    if attack.outside == "alive" and bait.victim.poll() is not None:
        return "its victim died"
    if attack.outside == "quiet":
        with suppress(BlockingIOError):
            bait.socket.accept()[0].close()
            return "reached the host's socket"
    return ""


@contextmanager
def _bait() -> Iterator[_Bait]:
    """A readable file, a listening socket and a process, all of which the sandbox's user could reach without a wall."""
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-bait-") as folder, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(folder, 0o755)
        canary = Path(folder) / "canary"
        canary.write_text("canary")
        path = str(Path(folder) / "control.sock")
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        listener.setblocking(False)
        victim = subprocess.Popen(["sleep", "60"])
        try:
            yield _Bait(canary=canary, socket=listener, path=path, victim=victim)
        finally:
            victim.kill()
            victim.wait()


def _variables() -> tuple[str, ...]:
    """Names in our environment that no sandbox has by itself."""
    own = {"PATH", "HOME", "TMPDIR", "LANG", "USER", "TERM", "PWD", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "_"}
    return tuple(name for name in os.environ if name not in own and len(name) > 3)  # `name=` inside another name


def outlived(tags: list[str]) -> list[int]:
    """Processes of sessions that are over."""
    found: list[int] = []
    wanted = [tag.encode() for tag in tags if tag]
    for name in os.listdir("/proc") if wanted and os.path.isdir("/proc") else []:
        if name.isdigit() and reap.alive(int(name)):
            with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as f:
                said = f.read()
                found += [int(name) for tag in wanted if tag in said]
    return found


def _kept(store: Path) -> list[str]:
    with suppress(NemotronOpsError, OSError):
        value = files.read_json(store)
        if isinstance(value, dict) and isinstance(value.get("held"), list):
            return [k for k in value["held"] if isinstance(k, str)]
    return []
