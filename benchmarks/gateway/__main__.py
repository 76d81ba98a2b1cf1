"""`make bench-gateway`: what the gateway costs beside its peers, in one interleaved run. Prints.

All planes (planes.py) stand before the same stub engine (stub.c), which speaks like llama-server; the
load (loadgen.c) is one thread of epoll. On a shared machine single times mean little: planes take turns within
each round, ratios are taken within a round and their median is shown, and CPU is the proxy's own process.
`--json FILE` keeps all numbers, `--plot FILE` draws them as SVG.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.planes import Plane, build_tools, say, start_planes
from nemotron_ops.measure.pictures.chart import Bar, Bars, Panel
from nemotron_ops.measure.pictures.drawing import draw

Numbers = dict[str, float]
Rounds = dict[str, dict[str, list[Numbers]]]  # load -> plane -> one per round


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of load: loadgen's flags and the numbers to show."""

    name: str
    flags: tuple[str, ...]
    kind: str  # requests | tokens | memory | cancel


def short(at_once: int, count: int) -> Load:
    flags = ("-c", str(at_once), "-n", str(count), "--max-tokens", "1")
    return Load(name=f"short, {at_once} at once", flags=flags, kind="requests")


def paced(streams: int) -> Load:
    flags = ("-c", str(streams), "-d", "3", "--stream", "--max-tokens", "1000000", "--rate", "100")
    return Load(name=f"streams at 100/s, {streams}", flags=flags, kind="tokens")


def full_speed(streams: int) -> Load:
    tokens = "100000" if streams == 1 else "4000"
    flags = ("-c", str(streams), "-n", str(2 * streams), "--stream", "--max-tokens", tokens)
    return Load(name=f"streams at full speed, {streams}", flags=flags, kind="tokens")


def large(megabytes: int, count: int) -> Load:
    flags = ("-c", "4", "-n", str(count), "--body-bytes", str(megabytes * 10**6), "--max-tokens", "1")
    return Load(name=f"{megabytes} MB prompts", flags=flags, kind="requests")


IDLE = ("-c", "1000", "--hold", "4", "--stream", "--max-tokens", "100000", "--rate", "0.2", "--ramp-ms", "1500")
SHORT_STREAMS = ("-c", "1", "-n", "300", "--stream", "--max-tokens", "8", "--rate", "1000")
LEAVING = ("-c", "1", "-n", "100", "--stream", "--max-tokens", "100000", "--rate", "100", "--abort-after", "3")
LOADS = (
    Load(name="1000 idle streams", flags=IDLE, kind="memory"),  # first: what large bodies took is not its own
    short(1, 2000), short(16, 4000), short(128, 4000),
    Load(name="short streams, 1 at once", flags=SHORT_STREAMS, kind="tokens"), paced(1), paced(32), paced(128),
    full_speed(1), full_speed(32), full_speed(128),
    large(1, 60), large(8, 20),
    Load(name="client leaves a stream", flags=LEAVING, kind="cancel"),
)  # fmt: skip
QUICK = ("1000 idle streams", "short, 16 at once", "streams at 100/s, 32", "client leaves a stream")
COLUMNS = {
    "requests": (
        ("cpu_s_per_10k_requests", "CPU s per 10,000 requests"),
        ("p50_ms", "median ms"),
        ("p99_ms", "99th percentile ms"),
    ),
    "tokens": (
        ("cpu_us_per_token", "CPU µs per token"),
        ("first_token_p50_ms", "median ms to first token"),
        ("tokens_per_s", "tokens/s"),
    ),
    "memory": (("rss_mib", "RSS MiB"),),
    "cancel": (("cancelled_p50_ms", "median ms until the engine knows"), ("cancelled_max_ms", "longest ms")),
}


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, four loads")
    parser.add_argument("--load", default="", help="only loads whose name begins so")
    parser.add_argument("--llama-server", type=Path, help="binary for the router plane; default: the current build's")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw an SVG here")
    given = parser.parse_args()
    loads = tuple(x for x in LOADS if x.name.startswith(given.load) and (not given.quick or x.name in QUICK))
    with tempfile.TemporaryDirectory(prefix="bench") as folder, ExitStack() as stack:
        room = Path(folder)
        tools = build_tools(room)
        planes = start_planes(stack, room, tools, given.llama_server or built_llama_server())
        found = measure(planes, loads, room, tools["loadgen"], rounds=1 if given.quick else given.rounds)
    names = [p.name for p in planes]
    put(f"\n{machine()}")
    print_numbers(found, names, loads)
    print_ratios(found, names, loads)
    print_bad(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.plot:
        given.plot.write_bytes(plot(found, [n for n in names if n != "direct"], loads))


def built_llama_server() -> Path | None:
    """The llama-server of the current build, if there is one."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.paths import user_layout

    build = store.current(user_layout(os.environ, uid=os.getuid()))
    return build.path / "bin" / "llama-server" if build else None


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {sys.version}"


def measure(planes: list[Plane], loads: tuple[Load, ...], room: Path, loadgen: Path, *, rounds: int) -> Rounds:
    """The numbers of all rounds; planes take turns within a round."""
    found: Rounds = {load.name: {plane.name: [] for plane in planes} for load in loads}
    for turn in range(rounds):
        for load in loads:
            for plane in planes:
                say(f"round {turn + 1}/{rounds}: {load.name}: {plane.name}")
                run = leave if load.kind == "cancel" else put_load
                found[load.name][plane.name].append(run(plane, load, room, loadgen))
    return found


def put_load(plane: Plane, load: Load, room: Path, loadgen: Path) -> Numbers:
    """One run of the load generator."""
    del room
    value = generate(plane, load, loadgen)
    cut = value["truncated"] if load.kind != "memory" and "-d" not in load.flags else 0
    if wrong := value["errors"] + value["http_errors"] + cut:
        text = f"{plane.name}, {load.name}: {wrong} bad answers: {value.get('error_sample', '').splitlines()[:1]}"
        if plane.name == "gateway":
            sys.exit(f"error: {text}")
        say(text)
    return {
        "cpu_s_per_10k_requests": 1e4 * value["cpu_sched_s"] / max(1, value["requests"]),
        "cpu_us_per_token": 1e6 * value["cpu_sched_s"] / max(1, value["events"]),
        "p50_ms": value["e2e_us"]["p50"] / 1e3,
        "p99_ms": value["e2e_us"]["p99"] / 1e3,
        "first_token_p50_ms": value["ttft_us"]["p50"] / 1e3,
        "tokens_per_s": value["events_per_s"],
        "rss_mib": value.get("rss_kb", 0) / 1024,
        "bad_answers": wrong,
    }


def leave(plane: Plane, load: Load, room: Path, loadgen: Path) -> Numbers:
    """Clients that leave: from the close of their connection to the engine's word that it knows."""
    read_aborts(plane.engine)
    log = room / "aborts.log"
    generate(plane, load, loadgen, "--abort-log", str(log))
    moments = (line.split() for line in log.read_text().splitlines())
    left = {int(connection): int(at_ns) for connection, at_ns in moments}
    known = {k: v for k, v in read_aborts(plane.engine).items() if k in left}
    waits = sorted((known[k] - left[k]) / 1e6 for k in known)
    if not waits:
        return {"cancelled_p50_ms": float("inf"), "cancelled_max_ms": float("inf")}
    return {"cancelled_p50_ms": statistics.median(waits), "cancelled_max_ms": waits[-1]}


def read_aborts(port: int) -> dict[int, int]:
    """Streams whose client the stub has missed since the last call: id -> monotonic ns."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/aborts", timeout=10) as answer:
        return {int(k): int(v) for k, v in (line.split() for line in answer.read().decode().splitlines())}


def generate(plane: Plane, load: Load, loadgen: Path, *more: str) -> dict[str, Any]:
    base = ["--base-url", f"http://127.0.0.1:{plane.port}", "--model", "m", "--no-tree", "--pids", str(plane.pid)]
    if plane.key:
        base += ["--key", plane.key]
    argv = [str(loadgen), *base, *load.flags, *more]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def median(found: Rounds, load: str, plane: str, key: str) -> float:
    return statistics.median(n[key] for n in found[load][plane])


def print_numbers(found: Rounds, planes: list[str], loads: tuple[Load, ...]) -> None:
    """Medians as Markdown."""
    put(f"\n| load | number | {' | '.join(planes)} |\n|---|---|{'---|' * len(planes)}")
    for load in loads:
        for key, title in COLUMNS[load.kind]:
            cells = [f"{median(found, load.name, p, key):.3g}" for p in planes]
            put(f"| {load.name} | {title} | {' | '.join(cells)} |")


def print_ratios(found: Rounds, planes: list[str], loads: tuple[Load, ...]) -> None:
    """The gateway's numbers over each peer's, as medians of the rounds' ratios, in Markdown."""
    peers = [p for p in planes if p != "gateway"]
    put(f"\n| gateway ÷ | {' | '.join(peers)} |\n|---|{'---|' * len(peers)}")
    for load in loads:
        for key, title in COLUMNS[load.kind]:
            ours = [n[key] for n in found[load.name]["gateway"]]
            cells = [ratio(ours, [n[key] for n in found[load.name][p]]) for p in peers]
            put(f"| {load.name}: {title} | {' | '.join(cells)} |")


def print_bad(found: Rounds) -> None:
    """Who answered badly; the gateway never does, or the run has ended."""
    for load, by_plane in found.items():
        for plane, many in by_plane.items():
            if wrong := sum(n.get("bad_answers", 0) for n in many):
                put(f"\n{plane}, {load}: {wrong:.0f} answers were errors or cut off.")


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the rounds' ratios; nothing where a peer's number is too small to be measured."""
    found = [a / b for a, b in zip(ours, theirs, strict=True) if b > 0]
    return f"{statistics.median(found):.2f}" if len(found) == len(ours) else "–"


def plot(found: Rounds, planes: list[str], loads: tuple[Load, ...]) -> bytes:
    """Bars: the first number of each load for each plane, as SVG."""
    panels = []
    for load in loads:
        key, title = COLUMNS[load.kind][0]
        bars = tuple(Bar(name=p, value=max(0.0, median(found, load.name, p, key))) for p in planes)
        panels.append(Panel(title=f"{load.name}: {title}", bars=bars))
    return draw(Bars(name="gateway-bench", title="The gateway beside its peers", panels=tuple(panels)))


def put(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
