"""Plans: complete command lines for whole machines, and what decides a build's id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.builds.backends import default_backend, install_line, package_tool
from nemotron_ops.builds.compile.installing import install
from nemotron_ops.builds.plan import BuildPlan, compile_argv, configure_argv, plan
from nemotron_ops.builds.spec import Backend, BuildOptions, Fix, Origin, Source, SourceKind
from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.host import Facts, Gpu, Tool
from nemotron_ops.policy import GIB
from tests.fakes.machines import GCC12, H100, LAPTOP, MAC, RADEON, WHEELS, XEON_AMX, nvcc

COMMIT = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"
SOURCE = Source(
    origin=Origin(kind=SourceKind.GIT, place="https://github.com/ggml-org/llama.cpp", ref="b11370"),
    label="b11370", commit=COMMIT, number=11370,
)  # fmt: skip
TOOLCHAINS = Path("/data/toolchains")
CUDA = "/data/toolchains/cuda-13.0.2-0708b7bb"
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/home/u", "CFLAGS": "-O0", "SECRET": "x"}


def planned(facts: Facts = LAPTOP, *, source: Source = SOURCE, busy: int = 0, **options: object) -> BuildPlan:
    asked = BuildOptions(**options)  # type: ignore[arg-type]
    return plan(asked, facts=facts, source=source, toolchains=TOOLCHAINS, env=ENV, busy=busy)


def configured(made: BuildPlan) -> list[str]:
    return list(configure_argv("cmake", "ninja", Path("/src"), Path("/work"), made.cmake))


ALWAYS = [
    "cmake", "-S/src", "-B/work", "-GNinja", "-DCMAKE_MAKE_PROGRAM=ninja",
    "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DGGML_CCACHE=OFF",
]  # fmt: skip
NAMED = ["-DLLAMA_BUILD_NUMBER=11370", "-DLLAMA_BUILD_COMMIT=0c1e5709"]
GCC = ["-DCMAKE_C_COMPILER=/usr/bin/cc", "-DCMAKE_CXX_COMPILER=/usr/bin/c++"]
STATIC = ["-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"]
RPATH = "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON"


def chosen(backend: str) -> list[str]:
    return [f"-DGGML_{b}={'ON' if b == backend else 'OFF'}" for b in ("CUDA", "METAL", "VULKAN", "HIP")]


def test_cpu_the_whole_command() -> None:
    assert configured(planned(backend=Backend.CPU)) == [*ALWAYS, *STATIC, *NAMED, *chosen("CPU"), *GCC]


def test_cpu_portable_the_whole_command() -> None:
    assert configured(planned(backend=Backend.CPU, portable=True)) == [
        *ALWAYS, "-DGGML_NATIVE=OFF", "-DBUILD_SHARED_LIBS=ON", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON",
        *NAMED, *chosen("CPU"), *GCC, RPATH, "-DCMAKE_INSTALL_RPATH=$ORIGIN",
        "-DCMAKE_C_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16",
        "-DCMAKE_CXX_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16",
    ]  # fmt: skip


def test_cuda_with_the_systems_toolkit_the_whole_command() -> None:
    facts = replace(H100, tools={**H100.tools, **nvcc(12, 9, 41)})
    assert configured(planned(facts)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("CUDA"), "-DGGML_CUDA_NCCL=OFF", *GCC,
        RPATH, "-DCMAKE_INSTALL_RPATH=$ORIGIN;/usr/local/cuda/lib64",
        "-DCMAKE_CUDA_ARCHITECTURES=90-real", "-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc",
        "-DCUDAToolkit_ROOT=/usr/local/cuda", "-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/c++",
    ]  # fmt: skip


def test_cuda_with_the_toolkit_from_wheels_the_whole_command() -> None:
    assert configured(planned(H100)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("CUDA"), "-DGGML_CUDA_NCCL=OFF", *GCC,
        RPATH, "-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../cuda/lib",
        "-DCMAKE_CUDA_ARCHITECTURES=90-real", f"-DCMAKE_CUDA_COMPILER={CUDA}/bin/nvcc",
        f"-DCUDAToolkit_ROOT={CUDA}", "-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/c++",
    ]  # fmt: skip


def test_cuda_12_for_an_older_driver_the_whole_command() -> None:
    root = "/data/toolchains/cuda-12.4.1-c96ab4af"
    assert configured(planned(replace(H100, driver_version="535.54", driver_cuda=(12, 2)))) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("CUDA"), "-DGGML_CUDA_NCCL=OFF", *GCC,
        RPATH, "-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../cuda/lib",
        "-DCMAKE_CUDA_FLAGS=-cudart=shared", "-DCMAKE_CUDA_RUNTIME_LIBRARY=Shared",
        "-DCMAKE_CUDA_ARCHITECTURES=90-real", f"-DCMAKE_CUDA_COMPILER={root}/bin/nvcc",
        f"-DCUDAToolkit_ROOT={root}", "-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/c++",
    ]  # fmt: skip


def test_each_further_architecture_takes_longer() -> None:
    one, two = (planned(H100, backend=Backend.CUDA, cuda_archs=archs).expected_s for archs in (("90",), ("89", "90")))
    assert 1.5 < two / one < 1.7


def test_metal_the_whole_command() -> None:
    assert configured(planned(MAC)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("METAL"), "-DGGML_METAL_EMBED_LIBRARY=ON", *GCC,
    ]  # fmt: skip


def test_hip_the_whole_command() -> None:
    assert configured(planned(RADEON)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("HIP"), "-DGPU_TARGETS=gfx1100", "-DGGML_HIP_RCCL=OFF", *GCC,
    ]  # fmt: skip


def test_vulkan_the_whole_command() -> None:
    facts = replace(LAPTOP, tools={**LAPTOP.tools, "glslc": Tool(path="/usr/bin/glslc")})
    assert configured(planned(facts, backend=Backend.VULKAN)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("VULKAN"), *GCC,
    ]  # fmt: skip


def test_zig_the_whole_command() -> None:
    home = "/data/toolchains/zig-0.17.1-ea6cc5d8"
    assert configured(planned(replace(LAPTOP, tools=WHEELS), backend=Backend.CPU, zig=True)) == [
        *ALWAYS, *STATIC, *NAMED, *chosen("CPU"), f"-DCMAKE_C_COMPILER={home}/cc", f"-DCMAKE_CXX_COMPILER={home}/c++",
        f"-DCMAKE_AR={home}/ar", f"-DCMAKE_RANLIB={home}/ranlib", "-DGGML_OPENMP=OFF",
        "-DCMAKE_EXE_LINKER_FLAGS=-s",
    ]  # fmt: skip


def test_the_guides_targets_and_ours_are_named() -> None:
    assert compile_argv("ninja", Path("/work"), 8, planned().targets) == (
        "ninja", "-C", "/work", "-j8", "llama-cli", "llama-mtmd-cli", "llama-server", "llama-gguf-split",
        "llama-bench", "llama-batched-bench", "llama-quantize", "llama-fit-params",
    )  # fmt: skip


def test_old_gcc_on_a_cpu_with_amx_leaves_amx_out_beforehand() -> None:
    made = planned(XEON_AMX, backend=Backend.CPU)
    assert made.cmake["CMAKE_CXX_FLAGS"] == "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    assert Fix.NO_AMX in made.fixes
    assert any("26954" in note for note in made.notes)


CPU_VARIANTS = """
    ggml_add_cpu_backend_variant(zen4           SSE42 AVX F16C AVX512 AVX512_BF16)
        if (NOT MSVC)
            ggml_add_cpu_backend_variant(sapphirerapids SSE42 AVX512 AVX512_BF16 AMX_TILE AMX_INT8)
        endif()
"""


@pytest.mark.parametrize(
    ("gcc", "kept"),
    [((12, 2), ["libggml-cpu-zen4.so"]), ((13, 1), ["libggml-cpu-sapphirerapids.so", "libggml-cpu-zen4.so"])],
)
def test_old_gcc_carries_no_variant_with_amx_to_other_machines(
    tmp_path: Path, gcc: tuple[int, ...], kept: list[str]
) -> None:
    compilers = {name: replace(tool, version=gcc) for name, tool in GCC12.items()}
    made = planned(replace(LAPTOP, tools={**compilers, **WHEELS}), backend=Backend.CPU, portable=True)
    (tmp_path / "src/ggml/src").mkdir(parents=True)
    (tmp_path / "src/ggml/src/CMakeLists.txt").write_text(CPU_VARIANTS)
    (tmp_path / "work/bin").mkdir(parents=True)
    for name in (*made.targets, "libggml-cpu-zen4.so", "libggml-cpu-sapphirerapids.so"):
        (tmp_path / "work/bin" / name).write_text(name)
    to = install(made, source=tmp_path / "src", work=tmp_path / "work", to=tmp_path / "to", libraries=())
    assert sorted(p.name for p in (to / "bin").iterdir()) == sorted([*made.targets, *kept])


def test_newer_gcc_keeps_amx() -> None:
    tools = {**XEON_AMX.tools, "cxx": Tool(path="/usr/bin/g++-13", version=(13, 2), kind="gcc")}
    assert planned(replace(XEON_AMX, tools=tools), backend=Backend.CPU).fixes == frozenset()


def test_the_environment_of_compilers_is_scrubbed_and_finds_ninja_first() -> None:
    assert planned().env == {
        "PATH": "/venv/bin:/venv/cmake/bin:/usr/bin:/bin", "HOME": "/home/u", "LC_ALL": "C",
    }  # fmt: skip


def test_the_places_of_gpu_sdks_reach_cmake_which_looks_for_them_there() -> None:
    env = {**ENV, "ROCM_PATH": "/opt/rocm-7", "HIP_PATH": "/opt/rocm-7", "VULKAN_SDK": "/sdk"}
    made = plan(BuildOptions(), facts=RADEON, source=SOURCE, toolchains=TOOLCHAINS, env=env)
    assert {made.env[name] for name in ("ROCM_PATH", "HIP_PATH", "VULKAN_SDK")} == {"/opt/rocm-7", "/sdk"}


@pytest.mark.parametrize(
    ("facts", "backend"),
    [
        (LAPTOP, Backend.CPU),
        (H100, Backend.CUDA),
        (MAC, Backend.METAL),
        (RADEON, Backend.HIP),
        (replace(RADEON, tools=GCC12), Backend.CPU),
        (replace(LAPTOP, gpus=(Gpu(index=0, kind="vulkan", name="Intel"),)), Backend.CPU),
    ],
)
def test_the_default_backend_is_what_the_machine_has(facts: Facts, backend: Backend) -> None:
    assert default_backend(facts) is backend


@pytest.mark.parametrize(
    ("backend", "facts", "hint"),
    [
        (Backend.METAL, LAPTOP, "--cpu"),
        (Backend.CUDA, MAC, "--metal"),
        (Backend.HIP, LAPTOP, "ROCm"),
        (Backend.VULKAN, LAPTOP, "apt-get install -y libvulkan-dev"),
        (Backend.VULKAN, replace(LAPTOP, distro="fedora"), "dnf install -y vulkan-loader-devel"),
        (Backend.CUDA, LAPTOP, "--cuda-arch"),
    ],
)
def test_a_backend_that_cannot_be_built_is_refused_with_the_remedy(backend: Backend, facts: Facts, hint: str) -> None:
    with pytest.raises(HostError) as caught:
        planned(facts, backend=backend)
    assert hint in (caught.value.hint or "")


def test_an_amd_gpu_that_the_plan_leaves_unused_is_said_with_the_remedy() -> None:
    bare = replace(RADEON, tools={**GCC12, **WHEELS})
    (note,) = planned(bare).notes
    assert "AMD GPU gfx1100 is not used" in note
    assert "hipblas-dev" in note
    assert planned(bare, backend=Backend.CPU).notes == ()
    assert planned(RADEON).notes == ()


def test_hip_without_a_gpu_here_wants_its_architecture() -> None:
    facts = replace(RADEON, gpus=())
    with pytest.raises(HostError, match="no AMD GPU"):
        planned(facts, backend=Backend.HIP)
    assert planned(facts, backend=Backend.HIP, hip_archs=("gfx942",)).cmake["GPU_TARGETS"] == "gfx942"


@pytest.mark.parametrize(
    ("distro", "line"),
    [
        ("debian", "sudo apt-get install -y g++"),
        ("fedora", "sudo dnf install -y gcc-c++"),
        ("arch", "sudo pacman -S --needed gcc"),
        ("alpine", "sudo apk add g++ linux-headers"),
    ],
)
def test_a_machine_without_a_compiler_is_told_its_own_install_line(distro: str, line: str) -> None:
    facts = replace(LAPTOP, distro=distro, tools=WHEELS)
    with pytest.raises(HostError, match="no C and C\\+\\+ compiler") as caught:
        planned(facts, backend=Backend.CPU)
    assert line in (caught.value.hint or "")
    assert "--zig" in (caught.value.hint or "")


def test_derivatives_of_a_distribution_use_its_package_tool() -> None:
    assert package_tool(replace(LAPTOP, distro="linuxmint", distro_like=("ubuntu", "debian"))) == "apt"
    assert "package tool" in install_line("git", replace(LAPTOP, distro="somebsd"))


@pytest.mark.parametrize(
    ("cores", "free_gib", "busy", "jobs"), [(8, 32, 0, 8), (8, 3, 0, 3), (8, 32, 1, 4), (1, 1, 3, 1), (64, 0, 0, 1)]
)
def test_jobs_are_bounded_by_cores_and_memory_and_shared(cores: int, free_gib: int, busy: int, jobs: int) -> None:
    facts = replace(LAPTOP, cores=cores, ram_available_bytes=free_gib * GIB)
    assert planned(facts, backend=Backend.CPU, busy=busy).jobs == jobs


def test_cuda_jobs_take_more_memory_than_cpu_jobs() -> None:
    facts = replace(H100, cores=16, ram_available_bytes=16 * GIB)
    assert planned(facts, backend=Backend.CPU).jobs == 16
    assert planned(facts, backend=Backend.CUDA).jobs == 12


def test_the_same_question_has_the_same_id() -> None:
    assert planned().id == planned(env_changed_elsewhere := replace(LAPTOP, cores=2)).id
    assert env_changed_elsewhere.cores != LAPTOP.cores


def test_a_cache_or_another_place_of_the_compiler_does_not_change_the_id() -> None:
    cached = replace(LAPTOP, tools={**LAPTOP.tools, "ccache": Tool(path="/usr/bin/ccache")})
    made = planned(cached)
    assert made.cmake["CMAKE_CXX_COMPILER_LAUNCHER"] == "/usr/bin/ccache"
    assert made.id == planned().id
    moved = {**LAPTOP.tools, "cxx": replace(LAPTOP.tools["cxx"], path="/opt/bin/c++")}
    assert planned(replace(LAPTOP, tools=moved)).id == planned().id


def test_cuda_is_cached_too() -> None:
    cached = replace(H100, tools={**H100.tools, "sccache": Tool(path="/x/sccache")})
    assert planned(cached).cmake["CMAKE_CUDA_COMPILER_LAUNCHER"] == "/x/sccache"


def test_whatever_decides_the_binary_changes_the_id() -> None:
    newer = {**LAPTOP.tools, "cxx": Tool(path="/usr/bin/c++", version=(13, 1), kind="gcc")}
    mixed = {**LAPTOP.tools, "cc": Tool(path="/usr/bin/cc", version=(19, 1), kind="clang")}
    rocm = {**RADEON.tools, "hipcc": Tool(path="/opt/rocm/bin/hipcc", version=(7, 1))}
    glslc = [{**LAPTOP.tools, "glslc": Tool(path="/usr/bin/glslc", version=(year, 8))} for year in (2023, 2025)]
    ids = [
        planned(backend=Backend.CPU).id,
        planned(backend=Backend.CPU, portable=True).id,
        planned(backend=Backend.CPU, cmake_args=("GGML_LTO=ON",)).id,
        planned(backend=Backend.CPU, source=replace(SOURCE, commit="f" * 40)).id,
        planned(replace(LAPTOP, tools=newer), backend=Backend.CPU).id,
        planned(replace(LAPTOP, cpu_flags=frozenset({"avx512f"})), backend=Backend.CPU).id,
        planned(replace(LAPTOP, glibc=(2, 39)), backend=Backend.CPU).id,
        planned(H100, cuda_archs=("90",)).id,
        planned(H100, cuda_archs=("89",)).id,
        planned(replace(LAPTOP, tools=mixed), backend=Backend.CPU).id,
        planned(RADEON).id,
        planned(replace(RADEON, tools=rocm)).id,
        *(planned(replace(LAPTOP, tools=tools), backend=Backend.VULKAN).id for tools in glslc),
    ]
    assert len(set(ids)) == len(ids)


def test_cpu_flags_that_only_kernels_report_do_not_change_the_id() -> None:
    rebooted = replace(LAPTOP, cpu_flags=LAPTOP.cpu_flags | {"tsc_known_freq"})
    assert planned(rebooted).id == planned().id


def test_a_portable_build_does_not_depend_on_this_cpu() -> None:
    other = replace(LAPTOP, cpu_flags=frozenset({"avx512f"}))
    assert planned(other, portable=True).id == planned(portable=True).id


def test_an_id_tells_people_backend_and_source() -> None:
    assert planned(backend=Backend.CPU).id.startswith("cpu-0c1e5709-")
    unknown = replace(SOURCE, commit="", sha256="ab" * 32)
    assert planned(backend=Backend.CPU, portable=True, source=unknown).id.startswith("cpu-portable-xabababab-")


def test_cmake_args_of_the_user_win() -> None:
    made = planned(cmake_args=("-DGGML_NATIVE=OFF", "CMAKE_CXX_FLAGS:STRING=-march=x86-64-v3"))
    assert made.cmake["GGML_NATIVE"] == "OFF"
    assert made.cmake["CMAKE_CXX_FLAGS"] == "-march=x86-64-v3"


@pytest.mark.parametrize("word", ["GGML_NATIVE", "-DX", "--fresh", "a b=c", "=1"])
def test_a_cmake_arg_that_is_no_option_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="cannot use --cmake-arg"):
        planned(cmake_args=(word,))
