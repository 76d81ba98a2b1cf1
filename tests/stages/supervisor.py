"""A stage for supervisor tests: a private installation, a supervisor process, fake or real engines. Processes.

    stage.configure(stage.fake("a"), stage.fake("b", "--ignore-term"))
    stage.up()
    stage.ready("a", "b")

Every process of the stage is ended at the end of the test, also without its supervisor.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.policy import Health, Restart
from nemotron_ops.supervisor import spec
from nemotron_ops.supervisor.control import client
from nemotron_ops.supervisor.spec import InstanceSpec

FAKES = Path(__file__).parents[1] / "fakes"
QUICK_RESTART = Restart(backoff_initial_s=0.05, backoff_max_s=0.2, max_restarts=3, window_s=60, stable_s=60)
QUICK_HEALTH = Health(probe_period_s=0.1, probe_timeout_s=2.0, wedge_s=30.0, load_stall_s=60.0, drain_s=2.0, stop_s=1.0)
HASTY_HEALTH = replace(QUICK_HEALTH, probe_timeout_s=1.0, wedge_s=2.0, stop_s=0.5)  # for engines that hang on purpose
WITHIN_S = 60.0
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


class Stage:
    """One installation and at most one supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout: Layout = user_layout({"NEMOTRON_OPS_HOME": str(folder / "home")}, uid=os.getuid())
        self.config, self.options = folder / "config.json", folder / "options.json"
        self.inflight_file, self.seen = folder / "inflight.json", folder / "seen.json"
        self.port = 0  # the kernel chooses; a later supervisor takes it from the record of the gateway
        self.listening: socket.socket | None = None  # passed to supervisors, as systemd does
        self.process: subprocess.Popen[bytes] | None = None
        other = str(self.layout.runtime / "agent.sock")  # the real gateway too is given more sockets than its own
        gateway = [sys.executable, str(FAKES / "gateway.py"), "--agent-socket", other]
        self.settings: dict[str, Any] = {"gateway": gateway}

    # ---- what runs

    def knobs(self, name: str) -> Path:
        path = self.folder / "knobs" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def fake(self, name: str, *words: str, **fields: Any) -> InstanceSpec:
        """An instance with a fake engine; `fields` override those of InstanceSpec."""
        own = [
            sys.executable,
            str(FAKES / "llama_server.py"),
            "--host",
            "{socket}",
            "--api-key-file",
            "{api_key_file}",
        ]
        made = InstanceSpec(
            name=name, model=name.split("-")[0], argv=(*own, "--knobs", str(self.knobs(name)), *words),
            restart=QUICK_RESTART, health=QUICK_HEALTH,
        )  # fmt: skip
        return replace(made, **fields)

    def configure(self, *instances: InstanceSpec, **more: Any) -> None:
        value = {"instances": [spec.to_json(i) for i in instances], **more}
        self.config.write_text(json.dumps(value))

    # ---- the supervisor

    def up(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start a supervisor; with `wait`, until it answers and has its first configuration (or has ended)."""
        home = str(self.folder / "home")
        self.options.write_text(json.dumps({"home": home, "port": 0, "config": str(self.config), **self.settings}))
        env = {**os.environ, "FAKE_INFLIGHT": str(self.inflight_file), "FAKE_SEEN": str(self.seen)}
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        with (self.folder / "supervisor.out").open("ab") as out:
            argv = [sys.executable, str(FAKES / "supervised.py"), str(self.options)]
            fds = [] if self.listening is None else [self.listening.fileno()]
            if fds:
                argv = [sys.executable, "-c", AS_SYSTEMD, str(fds[0]), *argv]
            self.process = process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=fds
            )
        if wait:
            self.until(lambda: self.process and (client.running(self.layout) or self.process.poll() is not None))
            assert self.process.poll() is None, self.said()
            self.port = int(self.ask("status")["endpoint"]["port"])
            if json.loads(self.config.read_text())["instances"]:
                self.until(lambda: process.poll() is not None or self.ask("snapshot")["snapshot"]["models"])
        return process

    def kill(self) -> None:
        """SIGKILL to the supervisor, and nothing else."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def down(self) -> int:
        """An orderly end; the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_S)

    def said(self) -> str:
        return (self.folder / "supervisor.out").read_text()

    # ---- asking

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        return client.request(self.layout, verb, timeout_s=WITHIN_S / 2, **args)

    def instances(self) -> dict[str, dict[str, Any]]:
        return {i["name"]: i for i in self.ask("status")["instances"]}

    def one(self, name: str) -> dict[str, Any]:
        return self.instances()[name]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.ask("events", count=1000)["events"] if e["kind"] == kind]

    def started_since(self, time_s: float) -> bool:
        """Whether a supervisor has started after `time_s`. While one is being replaced, there is no answer."""
        with suppress(ControlError):
            return any(e["time_s"] > time_s for e in self.events("supervisor-started"))
        return False

    def ready(self, *names: str) -> dict[str, int]:
        """Waits until all are ready; their pids."""
        self.until(lambda: all(self.instances().get(n, {}).get("state") == "ready" for n in names))
        return {n: self.one(n)["pid"] for n in names}

    def until(self, true: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Waits until `true()`; the failure's message holds the supervisor's output."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                answer = true()
            except (ControlError, KeyError) as exc:
                answer, last = None, str(exc)
            else:
                last = repr(answer)
            if answer:
                return
            assert time.monotonic() < deadline, f"still {last} after {within_s} s\n{self._state()}"
            time.sleep(0.02)

    def inflight(self, **counts: int) -> None:
        """What the stand-in gateway reports as in flight (`a_0=3` for instance "a-0")."""
        temporary = self.inflight_file.with_suffix(".new")
        temporary.write_text(json.dumps({k.replace("_", "-"): v for k, v in counts.items()}))
        temporary.rename(self.inflight_file)

    def connect(self) -> str:
        """The body that the endpoint answers with: the pid of the gateway."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.makefile("rb").read().decode().rpartition("\r\n")[2]

    # ---- processes

    def count(self, word: str) -> int:
        """How many running processes have `word` in their command line; one that ends meanwhile does not count."""
        found = 0
        for process in self.running():
            with suppress(psutil.Error):
                found += word in " ".join(process.cmdline())
        return found

    def running(self) -> list[psutil.Process]:
        """Everything that belongs to this stage, by its folders in the command line; zombies do not count."""
        own, found = (str(self.folder), str(self.layout.runtime)), []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = " ".join(process.info["cmdline"] or [])
            if any(path in words for path in own) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return [p for p in found if p.pid != os.getpid()]

    def _state(self) -> str:
        try:
            return json.dumps(self.ask("status"), indent=1)[-3000:] + self.said()[-2000:]
        except ControlError as exc:
            return f"{exc}\n{self.said()[-3000:]}"

    def clear(self) -> None:
        """End what is left."""
        for process in self.running():
            try:
                process.kill()
            except psutil.Error:
                continue
        if self.process:
            self.process.wait(WITHIN_S)
        shutil.rmtree(self.layout.runtime, ignore_errors=True)  # may be outside the test's folder


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    try:
        yield stage
    finally:
        stage.clear()


def alive(pid: int) -> bool:
    """Whether `pid` runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
