"""Runs cmake and ninja, with progress, a log and the relevant lines of a failure. cmake, ninja, disk.

The source is reached through a link in the build folder, and ccache counts paths from there. So a file has the same
name in every build, and files that a newer llama.cpp has not changed come out of the cache. Their real paths contain
commit and build id, so the cache would never find the same file twice.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nemotron_ops import proc
from nemotron_ops.builds.compile import budget, ninja
from nemotron_ops.builds.plan import BuildPlan, compile_argv, configure_argv
from nemotron_ops.errors import BuildError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.host.facts import Tool
from nemotron_ops.progress import Report, Step

CONFIGURE_STALL_S = 900.0  # zig builds its C++ library while cmake looks for a compiler
COMPILE_STALL_S = 3600.0  # no single step takes that long
START_CACHE_S = 30.0
CACHES = ("ccache", "sccache")
# A step that takes less than this fraction of its earlier time came out of a compiler cache. Measured: C++ from sccache
# 1/250, CUDA (preprocessed again) 1/10, ccache less.
FROM_CACHE = 0.2


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and with what one build is compiled."""

    source: Path
    folder: Path  # cmake's build folder; kept between interrupted runs
    log: Path
    steps: Path  # recorded seconds per step, of all builds
    budget: Path  # folder of the jobs that all builds share
    cmake: Tool
    ninja: Tool
    lock: int  # descriptor of the build's lock; compilers inherit it


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The result of compiling."""

    steps: int
    wall_s: float
    cpu_s: float
    unknown_options: tuple[str, ...]


def configure(plan: BuildPlan, place: Workplace, report: Report) -> tuple[str, ...]:
    """Run cmake; returns options that this llama.cpp does not know. Raises BuildError.

    If cmake fails on the files of an interrupted run, it runs once more without them; compiled objects stay.
    """
    report(Step(what="configure", done=0, total=1))
    place.log.parent.mkdir(parents=True, exist_ok=True)
    begun = (place.folder / "CMakeCache.txt").exists()
    _start_cache(plan)
    done = _run_cmake(plan, place)
    if not done.ok and begun:
        _forget(place.folder)
        done = _run_cmake(plan, place)
    if not done.ok:
        raise _failure("configure llama.cpp", done, place)
    report(Step(what="configure", done=1, total=1))
    return ninja.cmake_warnings(done.stdout)


def _start_cache(plan: BuildPlan) -> None:
    """Start sccache's server: a server that a compile step starts would inherit the build's locks.

    The command fails if the server runs already; if it cannot run, the compiler's own message says why.
    """
    cache = plan.cmake.get("CMAKE_CXX_COMPILER_LAUNCHER", "")
    if Path(cache).name == "sccache":
        proc.run([cache, "--start-server"], env=plan.env, timeout_s=START_CACHE_S)


def _forget(folder: Path) -> None:
    """Remove cmake's cache in `folder`, as `cmake --fresh` (3.24) does. llama.cpp's objects all lie deeper."""
    (folder / "CMakeCache.txt").unlink(missing_ok=True)
    shutil.rmtree(folder / "CMakeFiles", ignore_errors=True)


def _run_cmake(plan: BuildPlan, place: Workplace) -> proc.Finished:
    link = source_link(place.folder)
    place.folder.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(place.source)
    argv = configure_argv(place.cmake.path, place.ninja.path, link, place.folder, plan.cmake)
    _log(place.log, argv)
    return proc.run_lines(
        argv, on_line=_nothing, env=_env(plan, place), log=place.log, stall_s=CONFIGURE_STALL_S, pass_fds=[place.lock]
    )


def source_link(folder: Path) -> Path:
    """The link through which the build in `folder` reaches its source."""
    return folder / "source"


def _env(plan: BuildPlan, place: Workplace) -> dict[str, str]:
    return {**plan.env, "NINJA_STATUS": ninja.STATUS, "CCACHE_BASEDIR": str(place.folder)}


def compile_targets(plan: BuildPlan, place: Workplace, report: Report) -> Compiled:
    """Run ninja for the plan's targets, without the steps that an interrupted run has finished. Raises BuildError."""
    targets = plan.targets
    pending = outputs_pending(plan, place, targets)
    past = past_seconds(place.steps)
    estimate = ninja.Estimate(outputs=pending, seconds=past, jobs=plan.jobs)
    began = time.monotonic()
    total = len(pending)
    report(Step(what="compile", done=0, total=total or 1, eta_s=estimate.left_s(0.0)))

    def on_line(line: str) -> None:
        if tick := ninja.parse_tick(line):
            estimate.finish(tick.output)
            left = estimate.left_s(time.monotonic() - began)
            report(Step(what="compile", done=tick.done, total=tick.total, eta_s=left))

    done = _run_ninja(plan, place, on_line)
    if not done.ok:
        raise _failure("compile llama.cpp", done, place)
    if total == 0:
        report(Step(what="compile", done=1, total=1))
    took = recorded(place.folder)
    record(place.steps, compiled_seconds(took, past) if has_cache(plan) else took)
    wall_s = time.monotonic() - began
    return Compiled(steps=total, wall_s=wall_s, cpu_s=sum(took.values()), unknown_options=())


def _run_ninja(plan: BuildPlan, place: Workplace, on_line: Callable[[str], None]) -> proc.Finished:
    """Run ninja with the jobs of --jobs, or else with those that all builds of this store share."""
    own = plan.jobs_asked or not budget.understands(place.ninja)
    with nullcontext() if own else budget.shared(place.budget, plan.jobs) as share:
        env, fds = _env(plan, place), [place.lock]
        if share:
            env, fds = {**env, "MAKEFLAGS": share.makeflags}, [*fds, share.lock]
        argv = compile_argv(place.ninja.path, place.folder, None if share else plan.jobs, plan.targets)
        _log(place.log, (f"MAKEFLAGS={share.makeflags}", *argv) if share else argv)
        return proc.run_lines(argv, on_line=on_line, env=env, log=place.log, stall_s=COMPILE_STALL_S, pass_fds=fds)


def outputs_pending(plan: BuildPlan, place: Workplace, targets: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs that ninja has yet to make, in its order, by a dry run."""
    done = proc.run([place.ninja.path, "-C", place.folder, "-n", *targets], env=_env(plan, place))
    ticks = (ninja.parse_tick(line) for line in done.stdout.splitlines())
    return tuple(tick.output for tick in ticks if tick)


def past_seconds(steps: Path) -> dict[str, float]:
    """Seconds per output: those measured on this machine, else those shipped with nemotron-ops."""
    shipped: dict[str, float] = json.loads(files("nemotron_ops.builds").joinpath("data/steps.json").read_text())
    here: dict[str, float] = read_json(steps) or {}
    return {**shipped, **here}


def record(steps: Path, took: Mapping[str, float]) -> None:
    """Record the seconds of each step, for the next estimate."""
    write_json(steps, {**(read_json(steps) or {}), **took})


def compiled_seconds(took: Mapping[str, float], past: Mapping[str, float]) -> dict[str, float]:
    """The steps of `took` that were compiled, not found in a compiler cache: they count in the next estimate."""
    return {output: s for output, s in took.items() if s >= FROM_CACHE * past.get(output, 0.0)}


def has_cache(plan: BuildPlan) -> bool:
    """Whether a compiler cache wraps the compilers, or replaces them (`/usr/lib/ccache/g++`)."""
    words = (plan.cmake.get("CMAKE_CXX_COMPILER_LAUNCHER", ""), plan.compilers.cc, plan.compilers.cxx)
    return any(cache in Path(word).parts for word in words for cache in CACHES)


def recorded(folder: Path) -> dict[str, float]:
    """Seconds per output from the build folder's ninja log."""
    log = folder / ".ninja_log"
    return ninja.parse_log(log.read_text()) if log.exists() else {}


def _failure(what: str, done: proc.Finished, place: Workplace) -> BuildError:
    lines = done.stdout.splitlines()
    hint = f"the full output is in {place.log}"
    if done.stalled:
        return BuildError(f"cannot {what}: no output for too long", hint=hint)
    if ninja.out_of_memory(lines):
        return BuildError(
            f"cannot {what}: out of memory", hint="use fewer --jobs; the build continues where it stopped"
        )
    why = done.stderr if done.returncode in (126, 127) else f"it ended with {done.returncode}"
    return BuildError(f"cannot {what}: {why}", hint=hint, log_tail=ninja.failure_lines(lines))


def _log(log: Path, argv: tuple[str, ...]) -> None:
    with log.open("a", encoding="utf-8") as f:
        f.write(f"$ {' '.join(argv)}\n")


def _nothing(line: str) -> None:
    return
