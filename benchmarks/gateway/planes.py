"""What `python -m benchmarks.gateway` compares: programs between a client and one and the same stub engine. Processes.

plane     in front of the stub
direct    nothing: the stub itself
gateway   ours over the stub's unix socket, all features on
haproxy   HAProxy over TCP; it does not look into bodies
go        a bare Go ReverseProxy over TCP that reads the body for its model (gateway/proxy.go)
router    llama-server's router mode over TCP; gateway/exe.c and gateway/child.sh make the stub its child
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.models.synthetic import ensure
from nemotron_ops.proc import kill_group
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, State
from tests.stages.gateway import Control, ask

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parents[1]
SLOTS = 2000  # more than there are clients, and tokens for all of them: what is measured is the door, not the wait
CTX_TOKENS = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Something that answers on a port. `pid` is its process, whose CPU and memory are counted."""

    name: str
    port: int
    pid: int
    engine: int  # port of the stub behind it
    key: str = ""  # that clients have to send


def build_tools(room: Path) -> dict[str, Path]:
    """Compile stub, load generator, the router's preload, and the Go proxy if there is a Go compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        sys.exit("error: the benchmark needs Linux and a C compiler")
    tools = {}
    for name in ("stub", "loadgen"):
        tools[name] = room / name
        subprocess.run([compiler, "-O2", "-w", "-o", tools[name], SOURCES / f"{name}.c"], check=True)
    tools["exe"] = room / "exe.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", tools["exe"], SOURCES / "exe.c", "-ldl"], check=True)
    if go := shutil.which("go"):
        tools["proxy"] = room / "proxy"
        env = {**os.environ, "GOCACHE": str(room / "go"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        subprocess.run([go, "build", "-o", tools["proxy"], SOURCES / "proxy.go"], check=True, env=env)
    return tools


def start_planes(stack: ExitStack, room: Path, tools: dict[str, Path], llama_server: Path | None) -> list[Plane]:
    """Start everything that is there; what is not is said."""
    port = free_port()
    argv = [tools["stub"], "--uds", room / "stub.sock", "--port", str(port), "--close-streams"]
    stub = stack.enter_context(running(argv))
    wait_for(port)
    planes = [Plane(name="direct", port=port, pid=stub.pid, engine=port), gateway_plane(stack, room, port)]
    if haproxy := shutil.which("haproxy"):
        planes.append(haproxy_plane(stack, room, haproxy, port))
    else:
        say("no HAProxy here: its plane is left out")
    if "proxy" in tools:
        planes.append(go_plane(stack, tools["proxy"], port))
    else:
        say("no Go compiler here: its plane is left out")
    if llama_server is not None:
        planes.append(router_plane(stack, room, llama_server, tools))
    else:
        say("no llama-server here (--llama-server): router mode is left out")
    return planes


def gateway_plane(
    stack: ExitStack, room: Path, engine: int, python: Sequence[Any] = (sys.executable,), tree: Path = ROOT
) -> Plane:  # fmt: skip
    """Our own, as `serve 30b` starts it, with keys, usage, log and a shared context; the supervisor is played.

    `python` runs the module of the working tree `tree`.
    """
    control = Control(room / "control.sock")
    stack.callback(control.stop)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        fd, port = listening.fileno(), listening.getsockname()[1]
        argv = [*python, "-m", "nemotron_ops.gateway", "--control", control.path, "--listen-fd", str(fd)]
        _, key = keystore.create(room / "keys.json", Key(id="", sha256="", name="bench"))
        argv += ["--access-log", room / "access.log", "--api-keys-file", room / "keys.json"]
        argv += ["--usage-file", room / "usage.json"]
        begun = time.monotonic()
        process = stack.enter_context(running(argv, fds=(fd,), cwd=tree))
        view = InstanceView(
            name="m-0", model="m", state=State.READY, socket=str(room / "stub.sock"), api_key_file="", pid=1,
            slots=SLOTS, kv_unified=True, ctx_tokens=CTX_TOKENS,
        )  # fmt: skip
        model = ModelView(name="m", names=("m",), queue_length=5000, defaults={"max_tokens": 32768})
        control.show(models=(model,), instances=(view,))
        wait_for(port)
    say(f"gateway: {1000 * (time.monotonic() - begun):.0f} ms from start to its first healthy answer")
    return Plane(name="gateway", port=port, pid=process.pid, engine=engine, key=key)


def haproxy_plane(stack: ExitStack, room: Path, haproxy: str, upstream: int) -> Plane:
    """HAProxy, one thread, as for streams of small events."""
    port = free_port()
    config = room / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8192\n"
        "defaults\n  mode http\n  option abortonclose\n  option http-no-delay\n  option http-buffer-request\n"
        "  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{upstream}\n"
    )
    process = stack.enter_context(running([haproxy, "-db", "-f", config]))
    wait_for(port)
    return Plane(name="haproxy", port=port, pid=process.pid, engine=upstream)


def go_plane(stack: ExitStack, proxy: Path, upstream: int) -> Plane:
    """The bare Go proxy."""
    port = free_port()
    process = stack.enter_context(running([proxy, f"127.0.0.1:{port}", f"http://127.0.0.1:{upstream}"]))
    wait_for(port)
    return Plane(name="go", port=port, pid=process.pid, engine=upstream)


def router_plane(stack: ExitStack, room: Path, binary: Path, tools: dict[str, Path]) -> Plane:
    """llama-server's router mode; the stub that it starts is not counted."""
    ensure("moe", room / "models").rename(room / "models" / "m.gguf")
    port = free_port()
    argv = [binary, "--models-dir", room / "models", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    env = {
        "HOME": str(room), "PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(room), "LD_PRELOAD": str(tools["exe"]),
        "BENCH_CHILD": str(SOURCES / "child.sh"), "BENCH_STUB": str(tools["stub"]),
        "BENCH_ARGS": str(room / "stub.args"),
    }  # fmt: skip
    process = stack.enter_context(running(argv, env=env))
    wait_for(port)
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    status, answer = ask(("127.0.0.1", port), head % len(body) + body, timeout_s=60)
    if status != 200:
        sys.exit(f"error: router mode does not answer: {answer[-300:]!r}")
    args = (room / "stub.args").read_text().split()
    return Plane(name="router", port=port, pid=process.pid, engine=int(args[args.index("--port") + 1]))


@contextmanager
def running(
    argv: list[Any], *, fds: tuple[int, ...] = (), env: dict[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, killed at the end with what it has started."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [str(a) for a in argv], stdout=quiet, stderr=quiet, pass_fds=fds, env=env, cwd=cwd, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        kill_group(process.pid)
        process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return int(s.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until `/health` says 200."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    sys.exit(f"error: nothing healthy on port {port}")


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
