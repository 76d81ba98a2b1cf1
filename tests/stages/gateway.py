"""A gateway process with a scripted supervisor and real or scripted engines behind it. Processes, sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State, to_json

START_S = 60.0


class Control:
    """A scripted supervisor: `show` publishes a snapshot; `wants` and `inflight` hold the gateway's messages.

    `status` is its answer to that verb.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.snapshot = Snapshot()
        self.status: dict[str, Any] = {}
        self.wants: list[str] = []
        self.inflight: dict[str, int] = {}
        self.on_want: Callable[[str], None] = lambda name: None
        self._followers: list[socket.socket] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._server: socket.socket | None = None
        self.start()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen()
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        """End the supervisor: close its socket and all connections."""
        assert self._server is not None
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._lock:
            for s in self._open:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
                s.close()
            self._open.clear()
            self._followers.clear()
        self.path.unlink(missing_ok=True)

    def show(
        self, *, models: tuple[ModelView, ...] = (), instances: tuple[InstanceView, ...] = (), **rest: Any
    ) -> None:
        """Publish a new snapshot; fields that are not given keep their values."""
        old = self.snapshot
        self.snapshot = replace(
            old, serial=old.serial + 1, models=models or old.models, instances=instances or old.instances, **rest
        )
        with self._lock:
            for s in list(self._followers):
                self._send(s)

    def change(self, name: str, **changes: Any) -> None:
        """Publish the snapshot with changes to one instance."""
        self.show(instances=tuple(replace(i, **changes) if i.name == name else i for i in self.snapshot.instances))

    def _send(self, s: socket.socket) -> None:
        try:
            s.sendall(json.dumps({"snapshot": to_json(self.snapshot)}).encode() + b"\n")
        except OSError:
            self._followers.remove(s)

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                s, _ = server.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(s)
            threading.Thread(target=self._talk, args=(s,), daemon=True).start()

    def _talk(self, s: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in s.makefile("rb"):
                value = json.loads(line)
                if value.get("verb") == "follow":
                    with self._lock:
                        self._followers.append(s)
                        self._send(s)
                elif value.get("verb") == "want":
                    self.wants.append(value["model"])
                    s.sendall(b"{}\n")
                    self.on_want(value["model"])
                elif value.get("verb") == "status":
                    s.sendall(json.dumps(self.status).encode() + b"\n")
                elif "inflight" in value:
                    self.inflight = value["inflight"]


@dataclass
class Engine:
    """A real llama-server on a unix socket."""

    name: str
    model: Path
    folder: Path
    binary: Path
    alias: str = "engine-name"
    slots: int = 2
    key: str = "engine-secret"
    extra: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.sock"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> Engine:
        self.socket.unlink(missing_ok=True)
        key_file = self.folder / "engine.key"
        key_file.write_text(self.key + "\n")
        argv = [
            str(self.binary), "-m", str(self.model), "--host", str(self.socket), "-c", str(1024 * self.slots),
            "-np", str(self.slots), "--alias", self.alias, "--api-key-file", str(key_file), "--no-ui", "-t", "1",
            "--metrics", "-cram", "0", *self.extra,
        ]  # fmt: skip
        env = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "PATH": os.environ["PATH"]}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=env, process_group=0)
        deadline = time.monotonic() + START_S
        while not self._healthy():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "llama-server did not become ready"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _healthy(self) -> bool:
        status, _ = ask(self.socket, b"GET /health HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")
        return status == 200

    def view(self, model: str = "tiny", **rest: Any) -> InstanceView:
        assert self.process is not None
        return InstanceView(
            **{
                "name": self.name, "model": model, "state": State.READY, "socket": str(self.socket),
                "api_key_file": str(self.folder / "engine.key"), "slots": self.slots, "ctx_tokens": 1024,
                "pid": self.process.pid, **rest,
            }
        )  # fmt: skip


def ask(path: Path | tuple[str, int], request: bytes, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Send one raw request on a new connection. Returns status and all bytes received; status 0 without a response."""
    s = socket.socket(socket.AF_INET if isinstance(path, tuple) else socket.AF_UNIX)
    s.settimeout(timeout_s)
    try:
        s.connect(path if isinstance(path, tuple) else str(path))
        s.sendall(request)
        data = b""
        while part := s.recv(65536):
            data += part
    except OSError:
        return 0, b""
    finally:
        s.close()
    return (int(data.split(b" ", 2)[1]), data) if data.startswith(b"HTTP/1.1 ") else (0, data)


@dataclass
class Stage:
    """The gateway's process and its scripted supervisor."""

    folder: Path
    control: Control
    process: subprocess.Popen[str]
    port: int
    log: Path
    engines: list[Engine] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def raw(self, request: bytes, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
        return ask(self.address, request, timeout_s=timeout_s)

    def number(self, line: str) -> float:
        """The value of one line of /metrics; 0 if the line is missing."""
        return next(self._numbers(line), 0.0)

    def gauge(self, line: str) -> float:
        """The value of one line of /metrics; fails if the line is missing."""
        (value,) = self._numbers(line)
        return value

    def _numbers(self, line: str) -> Iterator[float]:
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for found in self.raw(request)[1].decode().splitlines():
            if found.startswith(line + " "):
                yield float(found.rsplit(" ", 1)[1])

    def settle(self, key: str = "") -> None:
        """Wait until the gateway routes by the latest snapshot (its serial is in /metrics)."""
        wanted = f"nemotron_ops_snapshot_serial {float(self.control.snapshot.serial)}".encode()
        request = (
            f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        )
        deadline = time.monotonic() + START_S
        while wanted not in self.raw(request.encode())[1]:
            assert time.monotonic() < deadline, "the gateway does not route by the latest snapshot"
            time.sleep(0.01)

    def prefer(self, *names: str) -> None:
        """Order the instances; the gateway chooses the first idle one."""
        by_name = {i.name: i for i in self.control.snapshot.instances}
        self.control.show(instances=tuple(by_name[n] for n in names))
        self.settle()

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def gateway(folder: Path, *flags: str, code_ok: tuple[int, ...] = (0,)) -> Iterator[Stage]:
    """Start a gateway on a free port, with a scripted supervisor whose snapshot is empty."""
    control = Control(folder / "control.sock")
    log = folder / "gateway.log"
    argv = [sys.executable, "-X", "dev", "-W", "error", "-m", "nemotron_ops.gateway", "--control", str(control.path)]
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    with log.open("wb") as err:
        process = subprocess.Popen(
            [*argv, "--listen-fd", str(listening.fileno()), *flags],
            stdout=subprocess.DEVNULL, stderr=err, text=True, pass_fds=(listening.fileno(),),
        )  # fmt: skip
    port = listening.getsockname()[1]
    listening.close()
    stage = Stage(folder=folder, control=control, process=process, port=port, log=log)
    try:
        yield stage
        ended = process.poll()
        code = stage.stop() if ended is None else ended
        assert code in code_ok, f"the gateway ended with {code}:\n{log.read_text()}"
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
        control.stop()
        for engine in stage.engines:
            engine.kill()


@contextlib.contextmanager
def real_gateway(
    folder: Path, llama_bin: Path, *flags: str, key: str = "", extra: tuple[str, ...] = (), **model: Any
) -> Iterator[Stage]:
    """Start a gateway and one real llama-server with a tiny model; `model` sets fields of its ModelView."""
    gguf = ensure("moe", folder)
    binary = llama_bin / "llama-server"
    engine = Engine(name="tiny-0", model=gguf, folder=folder, binary=binary, alias="tiny", extra=extra)
    with gateway(folder, *flags) as stage:
        stage.engines.append(engine.start())
        view = ModelView(**{"name": "tiny", "names": ("tiny", "org/tiny"), **model})
        stage.control.show(models=(view,), instances=(engine.view(),))
        stage.settle(key)
        yield stage


class Answer:
    """The response on one connection, read step by step; `broken` if the body did not end as HTTP requires."""

    def __init__(self, s: socket.socket) -> None:
        self.socket = s
        self.data = b""
        self.broken = False

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1]) if self.data.startswith(b"HTTP/1.1 ") else 0

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1")

    def until(self, word: bytes) -> None:
        """Read until the data contains `word`."""
        while word not in self.data:
            part = self.socket.recv(65536)
            assert part, f"ended before {word!r}: {self.data!r}"
            self.data += part

    def rest(self) -> bytes:
        """Read to the end; returns the body without chunk sizes."""
        try:
            while part := self.socket.recv(65536):
                self.data += part
        except ConnectionError:
            self.broken = True
        return self.everything_read()

    everything = rest

    def everything_read(self) -> bytes:
        head, _, body = self.data.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return body
        out = b""
        while True:
            size, found, body = body.partition(b"\r\n")
            if not found:
                self.broken = True
                return out
            length = int(size, 16)
            if length == 0:
                return out
            out += body[:length]
            body = body[length + 2 :]


@contextlib.contextmanager
def open_request(
    stage: Stage, path: str, body: object, *, headers: dict[str, str] | None = None, timeout_s: float = 30.0
) -> Iterator[Answer]:
    """Send a POST on a new connection, which is closed at the end of the block."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{extra}\r\n"
    with socket.create_connection(stage.address, timeout=timeout_s) as s:
        s.sendall(head.encode() + data)
        yield Answer(s)
