"""`make bench-gateway`: what the gateway costs beside its peers, as CPU and ratios of one interleaved run. Prints.

    plane     in front of
    direct    the stub itself
    gateway   the stub, over its unix socket, all features on
    haproxy   the stub, over TCP, if HAProxy is installed (it does not look into bodies)
    router    llama-server's router mode before a real tiny model, if a llama-server is given or built

The stub (bench/gateway/stub.c) speaks like llama-server, in C; the load (loadgen.c) is one thread of epoll. On a
shared machine single times mean little: rounds of all planes are interleaved, medians are compared, and CPU is the
proxy's own, by process. `--json FILE` keeps the numbers, `--plot FILE` draws them as SVG.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, State  # noqa: E402
from tests.gateway_stage import Control, ask  # noqa: E402

SOURCES = ROOT / "bench" / "gateway"


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Something that answers on a port. `pid` is its process, whose CPU and memory are counted."""

    name: str
    port: int
    pid: int
    model: str = "m"
    real: bool = False  # a real model behind it: no paced streams, no large bodies


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of load: loadgen's flags and the numbers to show."""

    name: str
    flags: tuple[str, ...]
    kind: str  # requests | tokens | memory


def short(at_once: int, count: int) -> Load:
    flags = ("-c", str(at_once), "-n", str(count), "--max-tokens", "1")
    return Load(name=f"short, {at_once} at once", flags=flags, kind="requests")


def paced(streams: int) -> Load:
    flags = ("-c", str(streams), "-d", "3", "--stream", "--max-tokens", "1000000", "--rate", "100")
    return Load(name=f"streams at 100/s, {streams}", flags=flags, kind="tokens")


def full_speed(streams: int) -> Load:
    flags = ("-c", str(streams), "-n", str(2 * streams), "--stream", "--max-tokens", "1000")
    return Load(name=f"streams at full speed, {streams}", flags=flags, kind="tokens")


def large(megabytes: int, count: int) -> Load:
    flags = ("-c", "4", "-n", str(count), "--body-bytes", str(megabytes * 10**6), "--max-tokens", "1")
    return Load(name=f"{megabytes} MB prompts", flags=flags, kind="requests")


IDLE = ("-c", "1000", "--hold", "4", "--stream", "--max-tokens", "100000", "--rate", "0.2", "--ramp-ms", "1500")
LOADS = (
    Load(name="1000 idle streams", flags=IDLE, kind="memory"),  # first: what large bodies took is not its own
    short(1, 800), short(16, 3000), short(128, 3000),
    paced(1), paced(32), paced(128),
    full_speed(1), full_speed(32), full_speed(128),
    large(1, 60), large(8, 20),
)  # fmt: skip
QUICK = ("1000 idle streams", "short, 16 at once", "streams at 100/s, 32")
REAL = ("short, 1 at once", "short, 16 at once")


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, three loads")
    parser.add_argument("--llama-server", type=Path, help="binary for the router plane")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw an SVG here")
    given = parser.parse_args()
    loads = tuple(load for load in LOADS if not given.quick or load.name in QUICK)
    with tempfile.TemporaryDirectory(prefix="bench") as folder, ExitStack() as stack:
        room = Path(folder)
        tools = build_tools(room)
        planes = start_planes(stack, room, tools, given.llama_server)
        numbers = measure(planes, loads, tools, rounds=1 if given.quick else given.rounds)
    print_tables(numbers, [p.name for p in planes], loads)
    if given.json:
        given.json.write_text(json.dumps(numbers, indent=1) + "\n")
    if given.plot:
        given.plot.write_text(plot(numbers, [p.name for p in planes if p.name != "direct"], loads))


def build_tools(room: Path) -> dict[str, Path]:
    """Compile stub and load generator."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        sys.exit("error: the benchmark needs Linux and a C compiler")
    for name in ("stub", "loadgen"):
        subprocess.run([compiler, "-O2", "-w", "-o", str(room / name), str(SOURCES / f"{name}.c")], check=True)
    return {name: room / name for name in ("stub", "loadgen")}


def start_planes(stack: ExitStack, room: Path, tools: dict[str, Path], llama_server: Path | None) -> list[Plane]:
    """Start everything that is there; what is not is said."""
    port = free_port()
    stub = stack.enter_context(
        running([tools["stub"], "--uds", room / "stub.sock", "--port", str(port), "--close-streams"])
    )
    wait_for(port)
    planes = [Plane(name="direct", port=port, pid=stub.pid), gateway_plane(stack, room)]
    if haproxy := shutil.which("haproxy"):
        planes.append(haproxy_plane(stack, room, haproxy, port))
    else:
        say("no HAProxy here: its plane is left out")
    binary = llama_server or built_llama_server()
    if binary is not None:
        planes.append(router_plane(stack, room, binary))
    else:
        say("no llama-server here (--llama-server): router mode is left out")
    return planes


def gateway_plane(stack: ExitStack, room: Path) -> Plane:
    control = Control(room / "control.sock")
    stack.callback(control.stop)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        fd, port = listening.fileno(), listening.getsockname()[1]
        argv = [sys.executable, "-m", "nemotron_ops.gateway", "--control", str(control.path), "--listen-fd", str(fd)]
        argv += ["--access-log", str(room / "access.log")]
        begun = time.monotonic()
        process = stack.enter_context(running(argv, fds=(fd,)))
        view = InstanceView(
            name="m-0", model="m", state=State.READY, socket=str(room / "stub.sock"), api_key_file="", slots=2000, pid=1
        )  # fmt: skip
        control.show(models=(ModelView(name="m", names=("m",), queue_length=5000),), instances=(view,))
        wait_for(port)
    say(f"gateway: {1000 * (time.monotonic() - begun):.0f} ms from start to its first healthy answer")
    return Plane(name="gateway", port=port, pid=process.pid)


def haproxy_plane(stack: ExitStack, room: Path, haproxy: str, upstream: int) -> Plane:
    port = free_port()
    config = room / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8192\n"
        "defaults\n  mode http\n  option abortonclose\n  option http-buffer-request\n"
        "  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{upstream}\n"
    )
    process = stack.enter_context(running([haproxy, "-db", "-f", config]))
    wait_for(port)
    return Plane(name="haproxy", port=port, pid=process.pid)


def router_plane(stack: ExitStack, room: Path, binary: Path) -> Plane:
    """llama-server's router mode; its child's CPU is not counted."""
    from nemotron_ops.models.synthetic import ensure

    ensure("moe", room / "models").rename(room / "models" / "tiny.gguf")
    port = free_port()
    argv = [
        binary,
        "--models-dir",
        room / "models",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
        "-c",
        "65536",
    ]
    env = {"HOME": str(room), "PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(room)}
    process = stack.enter_context(running(argv, env=env))
    wait_for(port)
    body = b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"max_tokens":1}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    status, answer = ask(("127.0.0.1", port), head % len(body) + body, timeout_s=60)
    if status != 200:
        sys.exit(f"error: router mode does not answer: {answer[-300:]!r}")
    return Plane(name="router", port=port, pid=process.pid, model="tiny", real=True)


def measure(planes: list[Plane], loads: tuple[Load, ...], tools: dict[str, Path], *, rounds: int) -> dict[str, Any]:
    """load -> plane -> numbers, the median of all rounds; planes take turns within a round."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for turn in range(rounds):
        for load in loads:
            for plane in planes:
                if plane.real and load.name not in REAL:
                    continue
                say(f"round {turn + 1}/{rounds}: {load.name}: {plane.name}")
                numbers = run_load(plane, load, tools["loadgen"])
                found.setdefault(load.name, {}).setdefault(plane.name, []).append(numbers)
    return {
        load: {plane: {k: statistics.median(n[k] for n in many) for k in many[0]} for plane, many in by_plane.items()}
        for load, by_plane in found.items()
    }


def run_load(plane: Plane, load: Load, loadgen: Path) -> dict[str, float]:
    argv = [
        str(loadgen),
        "--base-url",
        f"http://127.0.0.1:{plane.port}",
        "--model",
        plane.model,
        "--no-tree",
        "--pids",
        str(plane.pid),
    ]
    done = subprocess.run([*argv, *load.flags], capture_output=True, text=True, check=True, timeout=300)
    value = json.loads(done.stdout)
    wrong = (
        value["errors"]
        + value["http_errors"]
        + (value["truncated"] if load.kind != "memory" and "-d" not in load.flags else 0)
    )
    if wrong:
        sys.exit(f"error: {plane.name}, {load.name}: {wrong} bad answers: {value.get('error_sample', '')}")
    return {
        "cpu_s_per_10k_requests": 1e4 * value["cpu_s"] / max(1, value["requests"]),
        "cpu_us_per_token": 1e6 * value["cpu_s"] / max(1, value["events"]),
        "p50_ms": value["e2e_us"]["p50"] / 1e3,
        "first_token_p50_ms": value["ttft_us"]["p50"] / 1e3,
        "tokens_per_s": value["events_per_s"],
        "rss_mib": value.get("rss_kb", 0) / 1024,
    }


COLUMNS = {
    "requests": (("cpu_s_per_10k_requests", "CPU s per 10,000 requests"), ("p50_ms", "median ms")),
    "tokens": (
        ("cpu_us_per_token", "CPU µs per token"),
        ("first_token_p50_ms", "median ms to first token"),
        ("tokens_per_s", "tokens/s"),
    ),
    "memory": (("rss_mib", "RSS MiB"),),
}


def print_tables(numbers: dict[str, Any], planes: list[str], loads: tuple[Load, ...]) -> None:
    """The numbers as Markdown."""
    put(f"\n| load | number | {' | '.join(planes)} |\n|---|---|{'---|' * len(planes)}")
    for load in loads:
        for key, title in COLUMNS[load.kind]:
            cells = [f"{numbers[load.name][p][key]:.3g}" if p in numbers[load.name] else "–" for p in planes]
            put(f"| {load.name} | {title} | {' | '.join(cells)} |")


def plot(numbers: dict[str, Any], planes: list[str], loads: tuple[Load, ...]) -> str:
    """Bars: CPU per request and per token of each plane, as SVG."""
    colours = ("#4c72b0", "#dd8452", "#55a868", "#c44e52")
    bars: list[str] = []
    y = 30
    for load in loads:
        key, title = COLUMNS[load.kind][0]
        values = {p: numbers[load.name][p][key] for p in planes if p in numbers[load.name]}
        largest = max(values.values()) or 1
        bars.append(f'<text x="10" y="{y}" font-weight="bold">{load.name}: {title}</text>')
        for plane, value in values.items():
            y += 18
            width = 420 * value / largest
            colour = colours[planes.index(plane) % len(colours)]
            bars.append(f'<text x="10" y="{y}">{plane}</text>')
            bars.append(f'<rect x="80" y="{y - 11}" width="{width:.1f}" height="13" fill="{colour}"/>')
            bars.append(f'<text x="{86 + width:.1f}" y="{y}">{value:.3g}</text>')
        y += 28
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *bars, "</svg>\n"])


@contextmanager
def running(
    argv: list[Any], *, fds: tuple[int, ...] = (), env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, killed at the end."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([str(a) for a in argv], stdout=quiet, stderr=quiet, pass_fds=fds, env=env, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def built_llama_server() -> Path | None:
    """The llama-server of the current build, if there is one."""
    from nemotron_ops.build import store
    from nemotron_ops.paths import user_layout

    build = store.current(user_layout(os.environ, uid=os.getuid()))
    return build.path / "bin" / "llama-server" if build else None


def free_port() -> int:
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
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def put(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
