"""Compilers out of wheels: what is pinned, and the shape that tools and linkers look for."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.build import toolchain
from nemotron_ops.build.cuda import WHEELS_MACHINES, WHEELS_VERSION
from nemotron_ops.build.cuda_wheels import assembled, runtime_libraries, shape, stub_source, unpack_wheel
from nemotron_ops.build.plan import plan
from nemotron_ops.build.spec import Backend, BuildOptions
from nemotron_ops.build.wheel_pins import cuda_folder, wheels_for, zig_folder
from nemotron_ops.build.zig import write_wrapper
from nemotron_ops.errors import HostError
from nemotron_ops.host import Facts
from tests.machines import H100, LAPTOP, MAC, SPARK, WHEELS
from tests.pure.test_build_store import SOURCE

PARTS = {"nvidia-cublas", "nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-culibos", "nvidia-cuda-nvcc",
         "nvidia-cuda-runtime", "nvidia-nvvm"}  # fmt: skip


@pytest.mark.parametrize("machine", WHEELS_MACHINES)
def test_every_part_of_the_toolkit_is_pinned_for_every_machine(machine: str) -> None:
    wheels = wheels_for("cuda", "Linux", machine)
    assert {w.package for w in wheels} == PARTS
    assert len(wheels) == len(PARTS)
    assert all(len(w.sha256) == 64 and w.size > 0 and w.file.endswith(f"{machine}.whl") for w in wheels)


def test_a_toolkits_folder_is_named_by_its_content() -> None:
    names = {cuda_folder(WHEELS_VERSION, machine) for machine in WHEELS_MACHINES}
    assert len(names) == 2
    assert all(name.startswith(f"cuda-{WHEELS_VERSION}-") for name in names)


def test_zig_is_there_for_linux_and_macs_and_for_nothing_else() -> None:
    for facts in (LAPTOP, SPARK, MAC):
        (wheel,) = wheels_for("zig", facts.system, facts.machine)
        assert zig_folder(wheel).startswith("zig-")
    assert wheels_for("zig", "Linux", "s390x") == ()


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, name)
    return path


def test_wheels_become_a_toolkit(tmp_path: Path) -> None:
    root = tmp_path / "cuda"
    unpack_wheel(
        zipped(
            tmp_path / "nvidia_cuda_nvcc-13.whl", "nvidia/cu13/bin/nvcc", "nvidia/cu13/nvvm/bin/cicc",
            "nvidia_cuda_nvcc-13.dist-info/licenses/License.txt", "nvidia_cuda_nvcc-13.dist-info/METADATA",
        ),
        root,
    )  # fmt: skip
    libraries = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libnvblas.so.13")
    unpack_wheel(zipped(tmp_path / "nvidia_cublas-13.whl", *(f"nvidia/cu13/lib/{n}" for n in libraries)), root)
    shape(root, "x86_64")
    shape(root, "x86_64")  # twice is as good as once
    assert (root / "bin/nvcc").stat().st_mode & 0o111
    assert (root / "nvvm/bin/cicc").stat().st_mode & 0o111
    assert (root / "licences/nvidia_cuda_nvcc/License.txt").exists()
    assert not list(root.rglob("METADATA"))
    for place in ("lib/libcublas.so", "lib64/libcublas.so", "targets/x86_64-linux/lib/libcublas.so"):
        assert (root / place).read_text() == "nvidia/cu13/lib/libcublas.so.13"
    assert [p.name for p in runtime_libraries(root)] == ["libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"]


def test_on_arm_the_targets_folder_has_nvidias_name_for_it(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    shape(tmp_path, "aarch64")
    assert (tmp_path / "targets/sbsa-linux/lib").is_symlink()


def test_a_toolkit_without_its_last_file_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / cuda_folder(WHEELS_VERSION, "x86_64")
    root.mkdir()
    assert assembled(tmp_path, WHEELS_VERSION, "x86_64") is None
    (root / "complete.json").write_text("{}")
    assert assembled(tmp_path, WHEELS_VERSION, "x86_64") == root


def test_the_stub_has_every_function_of_the_header_once() -> None:
    twice = "CUresult cuInit(int f);\n"
    header = f"{twice}CUresult  cuMemCreate(int a,\n int b);\n{twice}int other(void);"
    assert stub_source(header) == "int cuInit(void) { return 100; }\nint cuMemCreate(void) { return 100; }\n"


def test_zigs_words_become_programs_that_keep_their_caches_together(tmp_path: Path) -> None:
    write_wrapper(tmp_path / "c++", Path("/t/zig-1"), "c++")
    text = (tmp_path / "c++").read_text()
    assert "exec '/t/zig-1/zig' c++ \"$@\"" in text
    assert "ZIG_GLOBAL_CACHE_DIR='/t/zig-1/cache'" in text
    assert (tmp_path / "c++").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("facts", "options", "part"),
    [
        (H100, BuildOptions(backend=Backend.CUDA, zig=True), "CPU backend alone"),
        (replace(LAPTOP, machine="s390x"), BuildOptions(zig=True), "no wheel is published"),
    ],
)
def test_zig_is_refused_where_it_is_not_known_to_work(facts: Facts, options: BuildOptions, part: str) -> None:
    with pytest.raises(HostError, match=part):
        plan(options, facts=facts, source=SOURCE, toolchains=Path("/t"), env={})


def test_a_disk_without_room_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    planned = plan(BuildOptions(backend=Backend.CPU), facts=LAPTOP, source=SOURCE, toolchains=Path("/t"), env={})
    toolchain.check_disk(replace(planned, disk_bytes=1), tmp_path)
    with pytest.raises(HostError, match="GB are needed"):
        toolchain.check_disk(replace(planned, disk_bytes=1 << 60), tmp_path)


def test_programs_that_drive_the_build_are_asked_for_by_name() -> None:
    with pytest.raises(HostError, match="no ninja was found"):
        toolchain.programs(replace(LAPTOP, tools={"cmake": WHEELS["cmake"]}))
