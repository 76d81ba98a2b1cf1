"""Test hosts seen from outside: a booted host, a laptop that deploys to it, clients that ask, recipes to deploy."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.ports import free_port

TESTHOST = Path(__file__).parents[1] / "testhost"
REPO = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TESTHOST_CACHE", "/var/cache/nemotron-ops-testhost"))
PORT = 8001
TINY = """\
title = "tiny, with {slots} slots"
arch = "nemotron_h_moe"
[model]
synthetic = "moe"
quant = "Q8_0"
alias = "nemotron-ops/tiny"
[context]
default_tokens = 4096
[server]
parallel = {slots}
"""
BROKEN = TINY.replace('synthetic = "moe"\nquant = "Q8_0"', 'path = "/nowhere/model.gguf"')


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
        """Run a shell script on the host over ssh; its stdout."""
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
        """Cut power and network together: no peer learns that its connections have ended."""
        self._link("down")
        self.control("crash")

    def power_back(self) -> None:
        self._link("up")
        self.control("start")

    def _link(self, state: str) -> None:
        """Set the host's own end of the link: packets at this end would be routed elsewhere."""
        subprocess.run(["ip", "-n", f"nmt-{self.name}", "link", "set", "eth0", state], check=True, timeout=30)

    def pids(self, pattern: str) -> list[str]:
        return self.ssh(f"pgrep -f {pattern!r} || true").split()

    def outer(self, pid: str) -> int:
        """The process id outside the host of its process `pid`."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                names = (entry / "status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                if names[-1] == pid and len(names) > 1 and f"/nmt-{self.name}/" in (entry / "cgroup").read_text():
                    return int(entry.name)
            except (OSError, IndexError):
                continue  # it has just ended
        raise AssertionError(f"{self.name} has no process {pid}")

    def ask(self, *, port: int = PORT, timeout_s: float = 30.0, check: bool = True) -> str:
        """The tiny model's answer to the usual question, asked on the host's loopback through the real gateway.

        Without `check`, "" if there is none.
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
        """The last lines that systemd and our services logged."""
        return self.ssh("journalctl --no-pager -o short-precise -n 80 -u 'nemotron-ops*' 2>&1", check=False)


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
        """A deploy that runs beside the test; stdout and stderr as one stream of lines."""
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
        """Write a recipe of the user's own."""
        folder = self.home / "config/recipes"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(text)

    def knows(self, *hosts: Host) -> None:
        """Use the ssh configuration of these hosts."""
        self.ssh_config.write_text("".join(h.ssh_config.read_text() for h in hosts))


def make_laptop(folder: Path, llama_bin: Path, bundles: Path) -> Laptop:
    """A laptop with a build of llama.cpp in its store: the one that this test run uses."""
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
    """Clients that repeat one question, and count the outcomes.

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
            headers["X-Session-Id"] = uuid.uuid4().hex  # many conversations, which a balancer spreads
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


def host_tool(*words: str) -> str:
    env = {**os.environ, "TESTHOST_OWNER": str(os.getpid()), "TESTHOST_CACHE": str(CACHE)}
    done = subprocess.run(
        [TESTHOST / "testhost.sh", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"host_tool {' '.join(words)}: {done.stderr}"
    return done.stdout
