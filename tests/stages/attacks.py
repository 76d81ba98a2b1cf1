"""A host with secrets, sockets and a victim, and the attacks of `tests/tables/sandbox*_attacks.jsonl` against it.

Run as a program, it holds them on one backend as the user that started it and prints one JSON object per attack; it
needs nothing but the standard library, so that an ordinary user's plain Python can run it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops.sandbox import choose, interpreter, launch, probe, reap, watch
from nemotron_ops.sandbox.limits import MIB, Limits
from nemotron_ops.sandbox.monty import MontySession
from nemotron_ops.sandbox.output import for_model
from nemotron_ops.sandbox.session import Sandbox, Session

TABLES = Path(__file__).parents[1] / "tables"
CORPUS = ("sandbox_attacks.jsonl", "sandbox_more_attacks.jsonl", "sandbox_further_attacks.jsonl")
LIMITS = Limits(memory_bytes=256 * MIB, work_bytes=64 * MIB, processes=64, files=20_000, call_s=8, first_call_s=8)
SECRET = "sk-very-secret-of-the-host"
BARE_S = 10.0


@dataclass
class Host:
    """What an attack wants: files of a home, listening sockets, a victim."""

    home: Path
    sock: Path
    port: int
    udp: int
    victim: subprocess.Popen[bytes]
    heard: dict[str, list[bytes]] = field(default_factory=dict)
    signalled: bool = False

    def fill(self, text: str) -> str:
        values = {
            "HOME": self.home, "SOCK": self.sock, "PORT": self.port, "UDP": self.udp, "VICTIM": self.victim.pid,
            "PARENT": os.getpid(),
        }  # fmt: skip
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        return text


@contextmanager
def host() -> Iterator[Host]:
    """A host for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="host-") as folder:
        home = Path(folder) / "home"
        for name in (".ssh/id_rsa", ".config/nemotron-ops/keys.json"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text("PRIVATE KEY of the host")
        unix, tcp, udp = socket.socket(socket.AF_UNIX), socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        unix.bind(str(home / "control.sock"))
        abstract = socket.socket(socket.AF_UNIX)
        if sys.platform == "linux":
            abstract.bind(f"\0{home / 'control.sock'}")
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        victim = subprocess.Popen(["sleep", "600"])
        there = Host(home, home / "control.sock", tcp.getsockname()[1], udp.getsockname()[1], victim)
        for name, listener in (("unix", unix), ("abstract", abstract), ("tcp", tcp), ("udp", udp)):
            there.heard[name] = []
            threading.Thread(target=_listen, args=(listener, there.heard[name]), daemon=True).start()
        signal.signal(signal.SIGUSR1, lambda number, frame: setattr(there, "signalled", True))
        try:
            yield there
        finally:
            victim.kill()
            victim.wait()
            for listener in (unix, abstract, tcp, udp):
                listener.close()


def _listen(listener: socket.socket, heard: list[bytes]) -> None:
    with suppress(OSError):
        if listener.type == socket.SOCK_DGRAM:
            while True:
                heard.append(listener.recv(100))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            connection.settimeout(1)
            with connection, suppress(OSError):
                heard.append(connection.recv(100))


@dataclass
class Peaks:
    """The most that a sandbox had at once."""

    processes: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    files: int = 0


@contextmanager
def peaks(session: Sandbox) -> Iterator[Peaks]:
    """Measure from outside what the session uses, independently of its own watch."""
    found, done = Peaks(), threading.Event()
    if not isinstance(session, Session):
        yield found
        return
    child, work = session._started.process.pid, os.dup(session._work())

    def measure() -> None:
        while not done.wait(0.03):
            pids = reap.tree(child)
            found.processes = max(found.processes, len(pids))
            found.memory_bytes = max(found.memory_bytes, sum(map(watch.proportional_bytes, pids)))
            used, files = _folder(work)
            found.disk_bytes, found.files = max(found.disk_bytes, used), max(found.files, files)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        os.close(work)


def _folder(work: int) -> tuple[int, int]:
    used = files = 0
    with suppress(OSError):
        for _, _, names, fd in os.fwalk(".", dir_fd=work):
            files += len(names)
            for name in names:
                with suppress(OSError):
                    used += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
    return used, files


def corpus() -> list[dict[str, Any]]:
    return [json.loads(line) for name in CORPUS for line in (TABLES / name).read_text().splitlines() if line]


def held(attack: dict[str, Any], there: Host, session: Sandbox) -> str:
    """ "" if the sandbox held this attack, else how it did not."""
    before = {name: len(heard) for name, heard in there.heard.items()}
    with peaks(session) as peak:
        outcome = session.run(attack["lang"], there.fill(attack["code"]))
    if "ESCAPED" in outcome.stdout:
        return f"escaped: {outcome.stdout[:200]} {outcome.limits_hit}"
    check, _, argument = there.fill(attack["host_check"]).partition(":")
    checks: dict[str, Callable[[], bool]] = {
        "no": lambda: Path(argument).exists(),
        "yes": lambda: not Path(argument).exists(),
        "quiet": lambda: len(there.heard[argument]) > before[argument],
        "full": lambda: not Path(argument).read_text(),
        "alive": lambda: there.victim.poll() is not None,
        "nosignal": lambda: there.signalled,
        "procs": lambda: peak.processes > int(argument),
        "memory": lambda: peak.memory_bytes > int(argument) * MIB,
        "disk": lambda: peak.disk_bytes > int(argument) * MIB,
        "inodes": lambda: peak.files > int(argument),
        "nocore": lambda: any("core" in item.name for item in outcome.files),
        "artifact": lambda: any(item.name == argument for item in outcome.files),
        "nextsh": lambda: "HIJACKED" in session.run("bash", "true").stdout,
        "special": lambda: "<|im_" in for_model(outcome.stdout) or "</tool_response>" in for_model(outcome.stdout),
        "strip": lambda: any(ord(c) < 32 and c not in "\n\t" for c in outcome.stdout),
        "": lambda: False,
    }
    wrong = checks[check]()
    return f"host check {attack['host_check']} failed: {peak} {outcome}" if wrong else ""


def bare(attack: dict[str, Any], there: Host) -> bool:
    """Whether the attack succeeds without any wall."""
    before = {name: len(heard) for name, heard in there.heard.items()}
    code = there.fill(attack["code"])
    words = [sys.executable, "-I", "-c", code] if attack["lang"] == "python" else ["bash", "-c", code]
    with tempfile.TemporaryDirectory(prefix="bare-") as work:
        env = {**os.environ, "HOME": work}
        try:
            done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True, timeout=BARE_S, check=False)
        except subprocess.TimeoutExpired:
            return False
    check, _, argument = there.fill(attack["host_check"]).partition(":")
    failed = {
        "yes": lambda: not Path(argument).exists(),
        "no": lambda: Path(argument).exists(),
        "quiet": lambda: len(there.heard[argument]) > before[argument],
        "alive": lambda: there.victim.poll() is not None,
        "nosignal": lambda: there.signalled,
    }.get(check, lambda: False)()
    return failed or "ESCAPED" in done.stdout


def session_on(backend: str, scratch: Path) -> Sandbox:
    """A session on one backend, without its self-test."""
    if backend == choose.Backend.MONTY:
        return MontySession(LIMITS)
    facts = probe.look(os.environ)
    candidate = next(c for c in choose.candidates(facts) if c.backend == backend)
    inside = interpreter.present(open_to_all=backend == choose.Backend.LANDLOCK and facts.root)
    return Session(launch.Order(candidate=candidate, interpreter=inside, limits=LIMITS, scratch=scratch))


def hold_one(attack: dict[str, Any], backend: str, scratch: Path) -> str:
    with host() as there:
        session = session_on(backend, scratch)
        try:
            return held(attack, there, session)
        finally:
            session.end()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", help="a backend, or `none` to run the attacks bare")
    parser.add_argument("ids", nargs="*")
    words = parser.parse_args()
    os.environ["NEMOTRON_SECRET_KEY"] = SECRET
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    attacks = [a for a in corpus() if a["lang"] != "js" and (not words.ids or a["id"] in words.ids)]
    if words.backend == "none":
        for attack in (a for a in attacks if a["measured"].get("none") == "escaped"):
            with host() as there:
                print(json.dumps({"id": attack["id"], "escaped": bare(attack, there)}), flush=True)
        return
    if words.backend == choose.Backend.MONTY:
        attacks = [a for a in attacks if a["lang"] == "python"]
    with tempfile.TemporaryDirectory(prefix="scratch-") as folder:
        Path(folder).chmod(0o755)
        for attack in attacks:
            started = time.monotonic()
            wrong = hold_one(attack, words.backend, Path(folder) / "s")
            print(
                json.dumps({"id": attack["id"], "wrong": wrong, "s": round(time.monotonic() - started, 2)}), flush=True
            )


if __name__ == "__main__":
    main()
