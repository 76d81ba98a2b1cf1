"""Chooses the compilers, their cache and their environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.builds import backends
from nemotron_ops.builds.packages.wheel_pins import wheels_for, zig_folder
from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.builds.toolchain import cuda
from nemotron_ops.errors import HostError
from nemotron_ops.host.facts import Facts

# Only these variables of the caller reach cmake, ninja and the compilers: CFLAGS and the like would change the binary
# without changing its id. llama.cpp finds the SDKs through their variables (ggml-hip/CMakeLists.txt:1,
# ggml-vulkan/CMakeLists.txt:11); the SDKs' versions are part of the id. Compilers of a cluster's modules start only
# with LD_LIBRARY_PATH.
ENV_KEPT = (
    "PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "USER", "LANG", "DEVELOPER_DIR", "SDKROOT",
    "CCACHE_DIR", "SCCACHE_DIR", "ROCM_PATH", "HIP_PATH", "VULKAN_SDK",
)  # fmt: skip
# The GPU compiler beside the host compiler; CUDA's toolkit is chosen in cuda.py.
GPU_COMPILERS: Mapping[Backend, tuple[str, str]] = {Backend.HIP: ("hipcc", "HIP"), Backend.VULKAN: ("glslc", "glslc")}
# The CPU flags that change generated code; other flags come and go with kernel versions.
ISA_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c", "bmi", "vnni", "gfni", "asimd", "sve", "sme", "i8mm", "bf16")


@dataclass(frozen=True, kw_only=True)
class Compilers:
    """The compilers, by path; `identity` stands for them in a build's id."""

    cc: str
    cxx: str
    identity: str
    kind: str
    from_wheel: bool = False


def choose_compilers(options: BuildOptions, facts: Facts, toolchains: Path) -> Compilers:
    """The system's compilers, or zig's from a wheel if requested. Raises HostError if there is none."""
    if options.zig:
        return zig_compilers(options, facts, toolchains)
    cc, cxx = facts.tools.get("cc"), facts.tools.get("cxx")
    if facts.bad_compilers and not (cc and cxx):
        raise HostError(
            f"cannot plan a build: {'; '.join(facts.bad_compilers)}",
            hint="unset CC and CXX to use the system's compilers, or name compilers that are here",
        )
    if not cc or not cxx:
        raise HostError(
            "cannot plan a build: this machine has no C and C++ compiler",
            hint=f"{backends.install_line('compiler', facts)}; or, for a CPU build, add --zig to use a compiler "
            "from a Python wheel",
        )
    identity = f"{cxx.kind} {cuda.dotted(cxx.version)}"
    if (cc.kind, cc.version) != (cxx.kind, cxx.version):
        identity += f", C by {cc.kind} {cuda.dotted(cc.version)}"
    identity += gpu_compiler(options.backend or backends.default_backend(facts), facts)
    return Compilers(cc=cc.path, cxx=cxx.path, identity=identity, kind=cxx.kind)


def gpu_compiler(backend: Backend, facts: Facts) -> str:
    """`, HIP 7.0.51831` where the SDK of `backend` reports its version."""
    program, name = GPU_COMPILERS.get(backend, ("", ""))
    tool = facts.tools.get(program)
    return f", {name} {cuda.dotted(tool.version)}" if tool and tool.version else ""


def zig_compilers(options: BuildOptions, facts: Facts, toolchains: Path) -> Compilers:
    """zig's, for the CPU backend. Raises HostError where it cannot be used."""
    backend = options.backend or backends.default_backend(facts)
    if backend is not Backend.CPU:
        raise HostError(
            f"cannot build for {backend} with zig: it is used for the CPU backend only",
            hint=f"add --cpu, or install a system compiler: {backends.install_line('compiler', facts)}",
        )
    wheels = wheels_for("zig", facts.system, facts.machine)
    if not wheels:
        raise HostError(f"cannot use zig: no wheel is published for {facts.system} on {facts.machine}")
    home = toolchains / zig_folder(wheels[0])
    identity = f"zig {wheels[0].version}"
    return Compilers(cc=str(home / "cc"), cxx=str(home / "c++"), identity=identity, kind="zig", from_wheel=True)


def compiler_options(compilers: Compilers) -> dict[str, str]:
    options = {"CMAKE_C_COMPILER": compilers.cc, "CMAKE_CXX_COMPILER": compilers.cxx}
    if compilers.kind == "zig":
        home = Path(compilers.cc).parent
        options |= {
            "CMAKE_AR": str(home / "ar"),
            "CMAKE_RANLIB": str(home / "ranlib"),
            "GGML_OPENMP": "OFF",  # zig has no OpenMP; ggml's own thread pool is as fast
            "CMAKE_EXE_LINKER_FLAGS": "-s",  # 108 MB of debug information otherwise
        }
    return options


def launcher_options(facts: Facts, backend: Backend) -> dict[str, str]:
    """Options for a compiler cache, if there is one. It does not change the binary, so it is not part of the id."""
    cache = facts.tools.get("ccache") or facts.tools.get("sccache")
    if cache is None:
        return {}
    languages = {Backend.CUDA: ("C", "CXX", "CUDA"), Backend.HIP: ("C", "CXX", "HIP")}.get(backend, ("C", "CXX"))
    return {f"CMAKE_{language}_COMPILER_LAUNCHER": cache.path for language in languages}


def build_env(env: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """The environment of cmake and ninja, with the wheels' programs first on the PATH."""
    kept = {key: env[key] for key in ENV_KEPT if key in env}
    homes = dict.fromkeys(str(Path(facts.tools[t].path).parent) for t in ("ninja", "cmake") if t in facts.tools)
    return {**kept, "PATH": ":".join([*homes, env.get("PATH", "/usr/bin:/bin")]), "LC_ALL": "C"}


def isa(facts: Facts) -> list[str]:
    """The instruction sets of this CPU that matter to compilers."""
    return sorted(flag for flag in facts.cpu_flags if flag.startswith(ISA_FLAGS))
