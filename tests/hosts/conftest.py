"""Test hosts: real systemd as PID 1 and real sshd, booted in about a second; and our own command line to reach them.

Needs root, systemd-nspawn, mmdebstrap and the Debian mirror once (the root file system is cached). Without root there
is nothing that could be booted, and the ring is skipped; CI has root, and there a missing tool is an error.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ports import free_port
from tests.fakes.programs import need

TESTHOST = Path(__file__).parents[1] / "testhost"
REPO = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TESTHOST_CACHE", "/var/cache/nemotron-ops-testhost"))
PORT = 8001
PROGRAMS = ("systemd-nspawn", "mmdebstrap", "zstd", "ip", "ssh", "nsenter", "haproxy")


@dataclass(frozen=True, kw_only=True)
class Host:
    """One booted host."""

    name: str
    info: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.info["host"])

    @property
    def ssh_config(self) -> Path:
        return Path(self.info["ssh_config"])

    def ssh(self, script: str, *, user: str = "root", check: bool = True) -> str:
        """Run a shell script there over ssh; its stdout."""
        done = subprocess.run(
            ["ssh", "-F", self.ssh_config, "-l", user, self.name, "sh -s"],
            input=f'export XDG_RUNTIME_DIR="/run/user/$(id -u)"\n{script}', capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{user}@{self.name}: {script!r} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def control(self, verb: str) -> None:
        """`reboot`, `crash` (power cut), `start`, `poweroff`."""
        host_tool(verb, self.name)

    def cut_power(self) -> None:
        """The power goes, and the network with it: nobody is told that connections have ended."""
        self._link("down")
        self.control("crash")

    def power_back(self) -> None:
        self._link("up")
        self.control("start")

    def _link(self, state: str) -> None:
        """The host's own end of the wire: at this end, packets would look for another way out of the machine."""
        subprocess.run(["ip", "-n", f"nmt-{self.name}", "link", "set", "eth0", state], check=True, timeout=30)

    def pids(self, pattern: str) -> list[str]:
        return self.ssh(f"pgrep -f {pattern!r} || true").split()

    def outer(self, pid: str) -> int:
        """What the machine outside calls the host's process `pid`."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                names = (entry / "status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                if names[-1] == pid and len(names) > 1 and f"/nmt-{self.name}/" in (entry / "cgroup").read_text():
                    return int(entry.name)
            except (OSError, IndexError):
                continue  # it ended just now
        raise AssertionError(f"{self.name} has no process {pid}")

    def ask(self, *, port: int = PORT, timeout_s: float = 30.0, check: bool = True) -> str:
        """The tiny model's answer to the usual question, asked over there on loopback through the real gateway.

        Without `check`, "" where there is none.
        """
        question = '{"messages":[{"role":"user","content":"What is 2 + 2?"}],"max_tokens":40}'
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        code = (
            "import json,urllib.request as u;"
            f"r=u.Request({url!r},{question.encode()!r},{{'Content-Type':'application/json'}});"
            f"print(json.load(u.urlopen(r,timeout={timeout_s}))['choices'][0]['message']['content'])"
        )
        return self.ssh(f'python3 -c "{code.replace(chr(34), chr(92) + chr(34))}"', check=check)

    def journal(self) -> str:
        """What its systemd and our services said last."""
        return self.ssh("journalctl --no-pager -o short-precise -n 80 -u 'nemotron-ops*' 2>&1", check=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what its hosts have to say about it."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Host):
                with suppress(OSError, subprocess.SubprocessError):
                    report.sections.append((f"journal of {name}", value.journal()))
    return report


def host_tool(*words: str) -> str:
    env = {**os.environ, "TESTHOST_OWNER": str(os.getpid()), "TESTHOST_CACHE": str(CACHE)}
    done = subprocess.run(
        [TESTHOST / "testhost.sh", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"host_tool {' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """The hosts' root file system, made once per machine."""
    need(*PROGRAMS, root=True)
    tar = CACHE / "testhost.tar.zst"
    if not tar.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([TESTHOST / "build-rootfs.sh", tar], check=True, stdin=subprocess.DEVNULL, timeout=900)
    host_tool("gc")
    return tar


@pytest.fixture(scope="module")
def new_host(rootfs: Path) -> Iterator[Callable[[], Host]]:
    """Boots a host each time it is called; all are gone at the end of the module."""
    names: list[str] = []

    def boot() -> Host:
        name = f"t{uuid.uuid4().hex[:8]}"
        names.append(name)
        return Host(name=name, info=json.loads(host_tool("up", name).splitlines()[-1]))

    yield boot
    for name in names:
        host_tool("drop", name)


@dataclass(frozen=True, kw_only=True)
class Laptop:
    """The machine that deploys: our command line with a home of its own and the hosts' ssh configuration."""

    home: Path
    package: Path  # folder that nemotron_ops is imported from
    ssh_config: Path
    who: str = "tester"

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "NEMOTRON_OPS_HOME": str(self.home),
            "NEMOTRON_OPS_SSH_CONFIG": str(self.ssh_config), "NEMOTRON_OPS_WHO": self.who,
            "PYTHONPATH": str(self.package), **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))},
        }  # fmt: skip

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nemotron_ops", *words]

    def run(self, *words: str, check: bool = True, timeout_s: float = 480) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*words), env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s
        )
        assert not check or done.returncode == 0, f"{words} -> {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A deploy that goes on beside the test; stdout and stderr as one stream of lines."""
        return subprocess.Popen(
            self.argv(*words), env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    @contextmanager
    def tunnel(self, target: str) -> Iterator[int]:
        """The target's endpoint on a local port."""
        port = free_port()
        child = self.start("tunnel", target, "--port", str(port))
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "no tunnel"
                    time.sleep(0.05)
            yield port
        finally:
            child.kill()
            child.communicate()

    def recipe(self, text: str, *, name: str = "tiny") -> None:
        """Put down a recipe of the user's own."""
        folder = self.home / "config/recipes"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(text)

    def knows(self, *hosts: Host) -> None:
        """Take over the ssh configuration of these hosts."""
        self.ssh_config.write_text("".join(h.ssh_config.read_text() for h in hosts))


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels for the hosts, fetched once per run."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def laptop(tmp_path: Path, llama_bin: Path, bundles: Path) -> Laptop:
    return make_laptop(tmp_path, llama_bin, bundles)


def make_laptop(folder: Path, llama_bin: Path, bundles: Path) -> Laptop:
    """A laptop that has built llama.cpp already: its store has the build that this test run uses."""
    home = folder / "home"
    build = home / "data/builds/testbuild-cpu"
    (build / "bin").mkdir(parents=True)
    shutil.copy2(llama_bin / "llama-server", build / "bin")
    manifest = llama_bin.parent / "manifest.json"
    known = json.loads(manifest.read_text()) if manifest.exists() else {"plan": {"backend": "cpu", "source": {}}}
    (build / "manifest.json").write_text(json.dumps(known))
    (home / "data/builds/current.json").write_text(json.dumps({"current": build.name, "previous": []}))
    (home / "cache").mkdir()
    (home / "cache/bundles").symlink_to(bundles)
    return Laptop(home=home, package=REPO, ssh_config=folder / "ssh_config")


@dataclass(kw_only=True)
class Load:
    """Clients that ask the same question again and again; counts what became of it.

    `kept` of the `threads` keep their connection for the next question, the others open a new one for each.
    """

    address: str = "127.0.0.1"
    port: int = PORT
    key: str = ""
    threads: int = 3
    kept: int = 0
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    by_status: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        kept = [n < self.kept for n in range(self.threads)]
        self._running = [threading.Thread(target=self._run, args=(keep,), daemon=True) for keep in kept]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(120)

    def _run(self, keep: bool) -> None:
        c = http.client.HTTPConnection(self.address, self.port, timeout=90)
        body = json.dumps({"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 40})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        while not self._stop.is_set():
            headers["X-Session-Id"] = uuid.uuid4().hex  # many conversations: a balancer spreads them
            try:
                c.request("POST", "/v1/chat/completions", body=body, headers=headers)
                response = c.getresponse()
                text = response.read().decode()
                if not keep:
                    c.close()  # the next request opens it again
                ok = response.status == 200 and "2 + 2 = 4." in text
                self._note(ok, response.status, text)
            except (OSError, http.client.HTTPException) as exc:
                c.close()
                self._note(False, 0, repr(exc))
            self._stop.wait(0.02)
        c.close()

    def _note(self, ok: bool, status: int, text: str) -> None:
        with self._lock:
            self.by_status[status] = self.by_status.get(status, 0) + 1
            if ok:
                self.answered += 1
            else:
                self.failed.append(f"{status} {text[:200]}")


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(check, within_s=30)`: waits until `check()` is true; looks less often than the pure ring's."""

    def wait(check: Callable[[], object], *, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not (answer := check()):
            assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
            time.sleep(0.2)

    return wait
