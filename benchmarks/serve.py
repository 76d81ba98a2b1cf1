"""Times what a client sees of `serve`: cold start, restart after a kill, swap, drain. Processes, HTTP.

Each round does all four with each installation in turn, so that all meet the same load. Compare medians as ratios
(`--against PYTHON`, the interpreter of another installation), not seconds: they are this machine's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nemotron_ops.proc import python_argv

READY_S = 60.0
POLL_S = 0.002
RECIPE = """\
title = "tiny, on demand"
arch = "nemotron_h_moe"
[model]
synthetic = "moe"
quant = "Q8_0"
alias = "{name}"
[context]
default_tokens = 4096
[server]
parallel = 2
threads = 1
[lifecycle]
on_demand = true
ttl_s = 3600
"""
WHAT = {
    "cold start": "from `serve tiny` to its first answer",
    "restart": "from kill -9 of the engine to the answer of a request made then",
    "wake": "from a request for a stopped on-demand model to its answer",
    "drain": "from SIGTERM to the end of `serve`, without requests",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each installation")
    parser.add_argument("--against", metavar="PYTHON", help="the Python of another installation, as the base of ratios")
    parser.add_argument("--builds", type=Path, default=Path.home() / ".local/share/nemotron-ops/builds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    pythons = {"here": sys.executable, **({"there": options.against} if options.against else {})}
    seconds: dict[str, dict[str, list[float]]] = {name: {what: [] for what in WHAT} for name in pythons}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        homes = {name: make_home(Path(folder) / name, options.builds) for name in pythons}
        for turn in range(options.rounds + 1):
            for name, python in pythons.items():
                found = one_round(python, homes[name])
                if turn:  # the first one makes the model and fills caches
                    for what, value in found.items():
                        seconds[name][what].append(value)
    print(json.dumps(seconds, indent=2) if options.json else in_words(seconds))


def make_home(home: Path, builds: Path) -> Path:
    """A home folder with this machine's builds, and an on-demand recipe beside the shipped `tiny`."""
    (home / "data").mkdir(parents=True)
    (home / "data/builds").symlink_to(builds)
    (home / "config/recipes").mkdir(parents=True)
    (home / "config/recipes/later.toml").write_text(RECIPE.format(name="later"))
    return home


def one_round(python: str, home: Path) -> dict[str, float]:
    """Seconds of each of `WHAT`."""
    found = {}
    port = free_port()
    began = time.perf_counter()
    with serving(python, home, port) as child:
        first_answer(port, "nemotron-ops/tiny")
        found["cold start"] = time.perf_counter() - began
        engine = engine_of(python, home, "tiny-0")
        began = time.perf_counter()
        os.kill(engine, signal.SIGKILL)
        first_answer(port, "nemotron-ops/tiny")
        found["restart"] = time.perf_counter() - began
        began = time.perf_counter()
        first_answer(port, "later")
        found["wake"] = time.perf_counter() - began
        began = time.perf_counter()
        child.send_signal(signal.SIGTERM)
        child.wait(READY_S)
        found["drain"] = time.perf_counter() - began
    return found


@contextmanager
def serving(python: str, home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`serve tiny later` in the foreground; ended with the block."""
    words = ("serve", "tiny", "later", "--port", str(port), "--no-build")
    child = subprocess.Popen(
        command(python, *words),
        env=os.environ | {"NEMOTRON_OPS_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.terminate()
        child.wait(READY_S)


def first_answer(port: int, model: str) -> None:
    """Ask until there is an answer of one token. Raises TimeoutError."""
    body = json.dumps({"model": model, "prompt": "2 + 2 =", "max_tokens": 1})
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            if ask(port, body) == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        time.sleep(POLL_S)
    raise TimeoutError(f"no answer of {model} in {READY_S:g} s")


def ask(port: int, body: str) -> int:
    """The status of one completion."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        client.request("POST", "/v1/completions", body, {"Content-Type": "application/json", "Connection": "close"})
        answer = client.getresponse()
        answer.read()
        return answer.status
    finally:
        client.close()


def command(python: str, *words: str) -> tuple[str, ...]:
    """The command line of nemotron-ops as `python` has it installed."""
    return (python, *python_argv("nemotron_ops", *words)[1:])


def engine_of(python: str, home: Path, instance: str) -> int:
    """The pid of an instance's llama-server."""
    done = subprocess.run(
        command(python, "status", "--json"),
        env=os.environ | {"NEMOTRON_OPS_HOME": str(home)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return next(int(i["pid"]) for i in json.loads(done.stdout)["instances"] if i["name"] == instance)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def in_words(seconds: dict[str, dict[str, list[float]]]) -> str:
    """A table of medians in milliseconds; with two installations, the ratio of the medians of pairs too."""
    lines = [f"{'':12}" + "".join(f"{name:>10}" for name in seconds) + ("     ratio" if len(seconds) > 1 else "")]
    for what, meaning in WHAT.items():
        cells = "".join(f"{1000 * statistics.median(all_s[what]):7.0f} ms" for all_s in seconds.values())
        if len(seconds) > 1:
            pairs = zip(seconds["here"][what], seconds["there"][what], strict=True)
            cells += f"{statistics.median(a / b for a, b in pairs):10.2f}"
        lines.append(f"{what:12}{cells}   {meaning}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
