"""Compares the time of `nemotron-ops build` with plain cmake, as ratios: `make bench-build`.

Both build the same source for the CPU with the same number of jobs, in fresh folders:

    plain   the how-to guide's commands: cmake -B …, cmake --build … --config Release --target the guide's four
    ours    nemotron-ops build --cpu --source …, which makes eight programs and self-tests them

"cold" is the first build, "again" repeats a build that exists, "other" builds in a fresh folder afterwards, where a
compiler cache helps if there is one (each side has its own; llama.cpp also finds one on the PATH). Ratios are
plain / ours, so more than 1 means that ours is faster. On a busy machine, CPU seconds are more reliable than wall
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nemotron_ops import host, proc
from nemotron_ops.builds.source import order, source
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import BuildRequest
from nemotron_ops.errors import SourceError
from nemotron_ops.installation import Installation
from nemotron_ops.paths import user_layout
from nemotron_ops.proc import python_argv

# Name, folder of the plain build, and further words for `nemotron-ops build`.
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cold", "p1", ()),
    ("again", "p1", ()),
    ("other", "p2", ("--force",)),
)
GUIDE = ("llama-cli", "llama-mtmd-cli", "llama-server", "llama-gguf-split")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time of a command."""

    wall_s: float
    cpu_s: float


def timed(argv: Sequence[str | Path], env: dict[str, str]) -> Spent:
    """Run `argv`, which must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, text=True, check=False)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall_s=round(wall_s, 2), cpu_s=round(cpu_s, 2))


def plain(tree: Path, folder: Path, jobs: int, env: dict[str, str]) -> Spent:
    """The guide's two commands."""
    options = ["-DBUILD_SHARED_LIBS=OFF", "-DGGML_CUDA=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"]  # no download in a timing
    first = timed(["cmake", "-S", tree, "-B", folder, *options], env)
    second = timed(["cmake", "--build", folder, "--config", "Release", f"-j{jobs}", "--target", *GUIDE], env)
    return Spent(wall_s=round(first.wall_s + second.wall_s, 2), cpu_s=round(first.cpu_s + second.cpu_s, 2))


def ours(tree: Path, jobs: int, env: dict[str, str], *words: str) -> Spent:
    argv: list[str | Path] = [
        *python_argv("nemotron_ops"),
        "build",
        "--cpu",
        "--source",
        tree,
        "--jobs",
        str(jobs),
        *words,
    ]
    return timed(argv, env)


def llama_cpp(env: dict[str, str]) -> Path:
    """The source that `nemotron-ops build` would use, unpacked."""
    sources = Sources(installation=Installation(layout=user_layout(env, uid=os.getuid()), env=env))
    for origin in order.order(BuildRequest(), sources.pins):
        try:
            return source.tree(source.resolve(origin, sources), sources)
        except SourceError as exc:
            print(exc.message, file=sys.stderr)
    sys.exit("cannot get llama.cpp's source")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--source", type=Path, help="folder with llama.cpp; default: the one that `build` would use")
    ask.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--quick", action="store_true", help="one build of each, and the repeated one; no second folder")
    given = ask.parse_args()
    env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    tree = given.source or llama_cpp(env)
    if not proc.run(["cmake", "--version"], env=env).ok:
        wheel = host.probe(env).tools["cmake"].path
        env["PATH"] = f"{Path(wheel).parent}:{env['PATH']}"
    with tempfile.TemporaryDirectory() as room:
        theirs = {**env, "CCACHE_DIR": f"{room}/ccache-plain"}
        mine = {**env, "CCACHE_DIR": f"{room}/ccache-ours", "NEMOTRON_OPS_HOME": f"{room}/home"}
        mine["PYTHONPATH"] = os.getcwd()
        for name, folder, words in CASES[: 2 if given.quick else None]:
            row(name, plain(tree, Path(room, folder), given.jobs, theirs), ours(tree, given.jobs, mine, *words))


def row(name: str, theirs: Spent, mine: Spent) -> None:
    """Print one line of the result at once."""
    ratio = {"wall": round(theirs.wall_s / mine.wall_s, 2), "cpu": round(theirs.cpu_s / max(mine.cpu_s, 0.01), 2)}
    print(json.dumps({"case": name, "plain": asdict(theirs), "ours": asdict(mine), "ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
