"""The page's process on a free port, and a person who is logged in to it. Processes, httpx."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nemotron_ops.studio.login.store import LoginStore

PASSWORD = "correct horse"
WAIT_S = 20.0


@dataclass
class Page:
    """One page's process. `restart` starts another on the same folder and port."""

    folder: Path
    endpoint: str
    sock: socket.socket
    process: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.base, trust_env=False, timeout=30)

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        fd = self.sock.fileno()
        argv = [sys.executable, "-P", "-m", "nemotron_ops.studio", "--listen-fd", str(fd), "--folder", str(self.folder)]
        argv += ["--control", str(self.folder / "control.sock"), "--endpoint", self.endpoint]
        self.process = subprocess.Popen(argv, pass_fds=(fd,))
        wait_for(lambda: self.http.get("/health").status_code == 200)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.http.close()
        self.sock.close()

    # a person

    def set_up(self) -> None:
        """Make the password with the code, which begins a session."""
        code = LoginStore(self.folder).new_code()
        assert self.post("/api/setup", code=code, password=PASSWORD).status_code == 200

    def post(self, path: str, **value: Any) -> httpx.Response:
        return self.http.post(path, json=value)

    def new_chat(self, **settings: Any) -> str:
        return str(self.post("/api/chats", title="", settings=settings).json()["id"])

    def ask(self, chat: str, content: str, **more: Any) -> str:
        answer = self.post(f"/api/chats/{chat}/ask", content=content, **more)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["turn"])

    def messages(self, chat: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(f"/api/chats/{chat}").json()["messages"]
        return found

    def last(self, chat: str) -> dict[str, Any]:
        return self.messages(chat)[-1]

    def wait_state(self, chat: str, *states: str) -> dict[str, Any]:
        wait_for(lambda: self.last(chat)["state"] in states)
        return self.last(chat)


def wait_for(ready: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Wait until `ready`. Raises AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.02)
    raise AssertionError("it did not come about in time")


@contextmanager
def page(folder: Path, endpoint: str) -> Iterator[Page]:
    """A running page; its socket stays open while its process is restarted."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        os.set_inheritable(sock.fileno(), True)
        made = Page(folder, endpoint, sock)
        try:
            made.start()
            yield made
        finally:
            made.stop()
