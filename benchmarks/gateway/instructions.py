"""`python -m benchmarks.gateway.instructions`: what a request and a token cost the gateway, in instructions. Prints.

The gateway runs under `valgrind --tool=callgrind` as `serve 30b` starts it, in front of the stub engine. Each number is
the difference between a run with N requests (or tokens) and one with 2N, over N, so start and end do not count. Unlike
times, it is the same in each run within a few tenths of a percent: hashes have a fixed seed, but some work is done once
a second whatever the load. `--tree DIR` counts another working tree, which has an environment in `.venv`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.gateway.planes import ROOT, build_tools, free_port, gateway_plane, running, wait_for

REQUESTS = 1000
TOKENS = 1000
TOKENS_PER_S = 200  # slow enough for the gateway to see each token by itself under valgrind
TOTAL = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)


def main() -> None:
    """Count both, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="working tree whose gateway is counted")
    parser.add_argument("--keep", type=Path, help="folder for callgrind's files, for callgrind_annotate")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("error: cannot count instructions: valgrind is not installed")
    requests = [count(given.tree, given.keep, f"requests-{n}", short(n)) for n in (REQUESTS, 2 * REQUESTS)]
    sys.stdout.write(f"{(requests[1] - requests[0]) // REQUESTS} instructions per short request\n")
    tokens = [count(given.tree, given.keep, f"tokens-{n}", stream(n)) for n in (TOKENS, 2 * TOKENS)]
    sys.stdout.write(f"{(tokens[1] - tokens[0]) // TOKENS} instructions per streamed token\n")


def short(requests: int) -> list[str]:
    """The load generator's flags for whole chat requests, one after the other on one connection."""
    return ["-c", "1", "-n", str(requests), "--max-tokens", "1"]


def stream(tokens: int) -> list[str]:
    """The flags for one stream."""
    return ["-c", "1", "-n", "1", "--stream", "--max-tokens", str(tokens), "--rate", str(TOKENS_PER_S)]


def count(tree: Path, keep: Path | None, name: str, flags: list[str]) -> int:
    """All instructions of one gateway that is started, gets this load, and is stopped."""
    with tempfile.TemporaryDirectory(prefix="count") as folder:
        room = Path(folder)
        tools = build_tools(room)
        found = room / "callgrind.out"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}"]
        python = ["env", "PYTHONHASHSEED=0", *valgrind, tree.resolve() / ".venv" / "bin" / "python"]
        with ExitStack() as stack:
            port = free_port()
            argv: list[Any] = [tools["stub"], "--uds", room / "stub.sock", "--port", str(port), "--close-streams"]
            stack.enter_context(running(argv))
            wait_for(port)
            plane = gateway_plane(stack, room, port, python, tree.resolve())
            load: list[Any] = [
                tools["loadgen"],
                "--base-url",
                f"http://127.0.0.1:{plane.port}",
                "--model",
                "m",
                "--no-tree",
            ]
            done = subprocess.run([*load, "--key", plane.key, *flags], check=True, capture_output=True, timeout=300)
            if b'"errors":0' not in done.stdout or b'"http_errors":0' not in done.stdout:
                sys.exit(f"error: bad answers: {done.stdout[:500]!r}")
        if keep is not None:
            keep.mkdir(exist_ok=True)
            shutil.copy(found, keep / name)
        total = TOTAL.search(found.read_bytes())
        if total is None:
            sys.exit("error: cannot count instructions: callgrind wrote no total")
        return int(total[1])


if __name__ == "__main__":
    main()
