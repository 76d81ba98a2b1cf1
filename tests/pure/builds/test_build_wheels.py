"""Compilers from wheels: their pins, and the layout that tools and linkers expect."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds.disk import check_room
from nemotron_ops.builds.packages import archive
from nemotron_ops.builds.packages.wheel_files import check_disk, fetch_deb, mirrors
from nemotron_ops.builds.packages.wheel_pins import Deb, cuda_folder, cuda_part, debs_for, wheels_for, zig_folder
from nemotron_ops.builds.plan import plan
from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.builds.toolchain import cuda12, toolchain
from nemotron_ops.builds.toolchain.cuda import PUBLISHED, WHEELS_MACHINES, dotted
from nemotron_ops.builds.toolchain.cuda_wheels import (
    assembled,
    finish_layout,
    runtime_libraries,
    stub_source,
    unpack_wheel,
)
from nemotron_ops.builds.toolchain.zig import write_wrapper
from nemotron_ops.errors import HostError, SourceError
from nemotron_ops.host import Facts
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.progress import silent
from tests.fakes.build_store import SOURCE
from tests.fakes.machines import H100, LAPTOP, MAC, SPARK, WHEELS

PARTS = {
    "cuda13": {"nvidia-cublas", "nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-culibos", "nvidia-cuda-nvcc",
               "nvidia-cuda-runtime", "nvidia-nvvm"},
    "cuda12": {"nvidia-cublas-cu12", "nvidia-cuda-cccl-cu12", "nvidia-cuda-nvcc-cu12", "nvidia-cuda-runtime-cu12"},
}  # fmt: skip


@pytest.mark.parametrize("machine", WHEELS_MACHINES)
@pytest.mark.parametrize("what", PARTS)
def test_every_part_of_the_toolkits_is_pinned_for_every_machine(what: str, machine: str) -> None:
    wheels = wheels_for(what, "Linux", machine)
    assert {w.package for w in wheels} == PARTS[what]
    assert len(wheels) == len(PARTS[what])
    assert all(len(w.sha256) == 64 and w.size > 0 and w.file.endswith(f"{machine}.whl") for w in wheels)


def test_every_published_toolkit_has_its_parts() -> None:
    assert {cuda_part(dotted(p.version)) for p in PUBLISHED} == set(PARTS)


@pytest.mark.parametrize(("machine", "word"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_compiler_of_cuda_12_is_debians(machine: str, word: str) -> None:
    (deb,) = debs_for("cuda12", machine)
    assert deb.file.endswith(f"_{word}.deb")
    assert len(deb.sha256) == 64
    assert debs_for("cuda13", machine) == ()


@pytest.mark.parametrize("version", ["13.0.2", "12.4.1"])
def test_a_toolkits_folder_is_named_by_its_content(version: str) -> None:
    names = {cuda_folder(version, machine) for machine in WHEELS_MACHINES}
    assert len(names) == 2
    assert all(name.startswith(f"cuda-{version}-") for name in names)


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
    finish_layout(root, "x86_64")
    finish_layout(root, "x86_64")  # a second time changes nothing
    assert (root / "bin/nvcc").stat().st_mode & 0o111
    assert (root / "nvvm/bin/cicc").stat().st_mode & 0o111
    assert (root / "licences/nvidia_cuda_nvcc/License.txt").exists()
    assert not list(root.rglob("METADATA"))
    for place in ("lib/libcublas.so", "lib64/libcublas.so", "targets/x86_64-linux/lib/libcublas.so"):
        assert (root / place).read_text() == "nvidia/cu13/lib/libcublas.so.13"
    assert [p.name for p in runtime_libraries(root)] == ["libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"]


def deb(path: Path, *names: str) -> Path:
    """A Debian package: an `ar` archive with a tar of the files in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name in names:
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(name), 0o755
            tar.addfile(entry, io.BytesIO(name.encode()))
    members = (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", packed.getvalue()))
    with path.open("wb") as out:
        out.write(b"!<arch>\n")
        for name, content in members:
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            out.write(content + b"\n" * (len(content) % 2))
    return path


def test_debians_package_gives_cuda_12_its_compiler(tmp_path: Path) -> None:
    root, lib = tmp_path / "cuda", "usr/lib/nvidia-cuda-toolkit"
    names = ("usr/bin/cudafe++", "usr/bin/nvcc", f"{lib}/bin/nvcc", f"{lib}/bin/cicc", f"{lib}/bin/crt/link.stub",
             f"{lib}/bin/g++", "usr/share/doc/nvidia-cuda-toolkit/copyright", "etc/nvcc.profile")  # fmt: skip
    (root / "lib").mkdir(parents=True)
    (root / "bin").mkdir()
    cuda12.add_compiler(deb(tmp_path / "toolkit.deb", *names), root)
    finish_layout(root, "x86_64")
    found = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    assert found == {
        "bin/cudafe++", "bin/nvcc", "bin/nvcc.profile", "bin/crt/link.stub", "nvvm/bin/cicc", "lib/libcudadevrt.a",
        "licences/debian-copyright",
    }  # fmt: skip
    assert (root / "bin/nvcc").read_text() == f"{lib}/bin/nvcc"  # the program, not Debian's wrapper around it
    assert (root / "bin/nvcc").stat().st_mode & 0o111
    assert {p.name for p in tmp_path.iterdir()} == {"cuda", "toolkit.deb"}  # nothing is left beside them


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"PK" * 99])
def test_what_is_no_debian_package_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a Debian package"):
        archive.deb_content(path, tmp_path)


HEADER = """extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ double                 rsqrt(double x);
extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ float                  sinpif(float x);
extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ double                 erfcx(double x);
extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ double                 cospi(double x) NVIDIAS_OWN;
__func__(double cospi(double a));
__func__(float sinpif(float a));
"""
DEFINITIONS = """__func__(double rsqrt(const double a))
{
  return 1.0 / sqrt(a);
}
  return static_cast<float>(sinpi(static_cast<double>(a)));
"""


def test_headers_agree_with_newer_c_libraries(tmp_path: Path) -> None:
    folder = tmp_path / "include/crt"
    folder.mkdir(parents=True)
    (folder / "math_functions.h").write_text(HEADER)
    (folder / "math_functions.hpp").write_text(DEFINITIONS)
    cuda12.agree_with_glibc(tmp_path)
    text, more = (folder / "math_functions.h").read_text(), (folder / "math_functions.hpp").read_text()
    for line in (
        "rsqrt(double x) NEMOTRON_OPS_GLIBC_2_42;", "sinpif(float x) NEMOTRON_OPS_GLIBC_2_41;", "erfcx(double x);",
        "__func__(double cospi(double a));", "__func__(float sinpif(float a) NEMOTRON_OPS_GLIBC_2_41);",
    ):  # fmt: skip
        assert line in text
    assert more == DEFINITIONS.replace("double a))", "double a) NEMOTRON_OPS_GLIBC_2_42)")
    cuda12.agree_with_glibc(tmp_path)
    assert (folder / "math_functions.h").read_text() == text


def test_a_mirror_of_debian_may_be_named() -> None:
    assert len(mirrors({})) == 2
    assert mirrors({"NEMOTRON_OPS_DEBIAN_MIRROR": "http://mirror/debian/"}) == ("http://mirror/debian",)


def test_debians_package_is_taken_from_any_mirror_if_its_hash_is_right(tmp_path: Path) -> None:
    content, folder = b"a package", tmp_path / "mirror/pool/n"
    folder.mkdir(parents=True)
    (folder / "n_1~2_amd64.deb").write_bytes(content)
    pinned = Deb(package="n", version="1~2", path="pool/n/n_1~2_amd64.deb", size=len(content), machine="x86_64",
                 sha256=hashlib.sha256(content).hexdigest())  # fmt: skip
    env = {"NEMOTRON_OPS_DEBIAN_MIRROR": (tmp_path / "mirror").as_uri(), "PATH": "/usr/bin:/bin"}

    def got(deb: Deb) -> Path:
        return fetch_deb(deb, cache=tmp_path / "cache", env=env, report=silent, hint="name another mirror")

    assert got(pinned).read_bytes() == content
    with pytest.raises(SourceError, match="sha256 is") as caught:
        got(replace(pinned, sha256="0" * 64))
    assert caught.value.hint == "name another mirror"
    with pytest.raises(SourceError, match="cannot copy"):
        got(replace(pinned, path="pool/n/other.deb"))


def test_programs_of_cuda_12_use_the_shared_runtime(tmp_path: Path) -> None:
    def cmake(arch: str) -> Mapping[str, str]:
        options = BuildOptions(backend=Backend.CUDA, cuda_archs=(arch,))
        return plan(options, facts=H100, source=SOURCE, toolchains=tmp_path, env={}).cmake

    assert cmake("70")["CMAKE_CUDA_RUNTIME_LIBRARY"] == "Shared"
    assert cmake("70")["CMAKE_CUDA_COMPILER"] == str(tmp_path / cuda_folder("12.4.1", "x86_64") / "bin/nvcc")
    assert "CMAKE_CUDA_RUNTIME_LIBRARY" not in cmake("90")


def test_on_arm_the_targets_folder_has_nvidias_name_for_it(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    finish_layout(tmp_path, "aarch64")
    assert (tmp_path / "targets/sbsa-linux/lib").is_symlink()


def test_a_toolkit_without_its_last_file_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / cuda_folder("13.0.2", "x86_64")
    root.mkdir()
    assert assembled(tmp_path, "13.0.2", "x86_64") is None
    (root / "complete.json").write_text("{}")
    assert assembled(tmp_path, "13.0.2", "x86_64") == root


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
        (H100, BuildOptions(backend=Backend.CUDA, zig=True), "CPU backend only"),
        (replace(LAPTOP, machine="s390x"), BuildOptions(zig=True), "no wheel is published"),
    ],
)
def test_zig_is_refused_where_it_is_not_known_to_work(facts: Facts, options: BuildOptions, part: str) -> None:
    with pytest.raises(HostError, match=part):
        plan(options, facts=facts, source=SOURCE, toolchains=Path("/t"), env={})


def test_a_disk_without_room_is_refused_before_anything_is_done(layout: Layout) -> None:
    planned = plan(BuildOptions(backend=Backend.CPU), facts=LAPTOP, source=SOURCE, toolchains=Path("/t"), env={})
    toolchain.check_disk(replace(planned, disk_bytes=1), Installation(layout=layout, env={}, known=LAPTOP))
    with pytest.raises(HostError, match="GB are needed"):
        toolchain.check_disk(replace(planned, disk_bytes=1 << 60), Installation(layout=layout, env={}, known=LAPTOP))


def test_folders_on_one_disk_share_its_room(tmp_path: Path) -> None:
    most = shutil.disk_usage(tmp_path).free * 2 // 3
    check_room("x", {tmp_path / "a": most})
    with pytest.raises(HostError, match=r"cannot x: .* GB are needed"):
        check_room("x", {tmp_path / "a": most, tmp_path / "b": most})


def test_the_disk_that_a_plan_takes_counts_the_toolkit_and_its_download(layout: Layout) -> None:
    options = BuildOptions(backend=Backend.CUDA, cuda_archs=("90",))
    planned = plan(options, facts=H100, source=SOURCE, toolchains=layout.toolchains, env={})
    download = sum(part.size for part in wheels_for("cuda13", "Linux", "x86_64"))
    assembling, compiling = toolchain.disk_needs(planned, Installation(layout=layout, env={}, known=H100))
    assert sum(assembling.values()) > 2.5 * download  # packed and unpacked
    assert sum(compiling.values()) > planned.disk_bytes + 1.5 * download
    assert toolchain.disk_bytes(planned, Installation(layout=layout, env={}, known=H100)) == max(
        sum(assembling.values()), sum(compiling.values())
    )
    here = layout.toolchains / cuda_folder("13.0.2", "x86_64")
    here.mkdir(parents=True)
    (here / "complete.json").write_text("{}")
    assert toolchain.disk_bytes(planned, Installation(layout=layout, env={}, known=H100)) == planned.disk_bytes


def test_a_disk_without_room_for_a_toolkit_is_refused_before_the_download(tmp_path: Path) -> None:
    (wheel,) = wheels_for("zig", "Linux", "x86_64")
    room = {"cache": tmp_path / "cache", "to": tmp_path / "toolchains"}
    check_disk("zig", (replace(wheel, size=1),), **room, unpacked_factor=2)
    with pytest.raises(HostError, match=r"cannot assemble zig: .*cache has .* are needed"):
        check_disk("zig", (replace(wheel, size=1 << 60),), **room, unpacked_factor=2)
    with pytest.raises(HostError, match=r"cannot assemble zig: .* are needed"):
        check_disk("zig", (replace(wheel, size=1),), **room, unpacked_factor=1 << 60)


def test_the_plan_knows_what_is_to_be_downloaded_and_what_is_here(layout: Layout) -> None:
    def files(**options: Any) -> list[str]:
        planned = plan(BuildOptions(**options), facts=H100, source=SOURCE, toolchains=layout.toolchains, env={})
        return [part.file for part in toolchain.to_download(planned, Installation(layout=layout, env={}, known=H100))]

    assert files(backend=Backend.CPU) == []
    assert len(files(backend=Backend.CPU, zig=True)) == 1
    assert len(files(backend=Backend.CUDA, cuda_archs=("90",))) == len(PARTS["cuda13"])
    old = files(backend=Backend.CUDA, cuda_archs=("70",))
    assert len(old) == len(PARTS["cuda12"]) + 1
    assert old[-1].endswith(".deb")
    here = layout.toolchains / cuda_folder("12.4.1", "x86_64")
    here.mkdir(parents=True)
    (here / "complete.json").write_text("{}")
    assert files(backend=Backend.CUDA, cuda_archs=("70",)) == []


def test_toolchains_of_another_release_are_out_of_date(tmp_path: Path) -> None:
    (zig,) = wheels_for("zig", "Linux", "x86_64")
    current = [*(cuda_folder(dotted(p.version), "x86_64") for p in PUBLISHED), zig_folder(zig)]
    for name in (*current, "cuda-12.0.0-aaaaaaaa", "zig-0.1.0-bbbbbbbb", "driver-stub", ".cuda-13.0.2-x.new"):
        (tmp_path / name).mkdir()
    (tmp_path / f".{current[0]}.lock").touch()
    found = toolchain.outdated(tmp_path, LAPTOP)
    assert [p.name for p in found] == ["cuda-12.0.0-aaaaaaaa", "zig-0.1.0-bbbbbbbb"]
    assert toolchain.outdated(tmp_path / "none", LAPTOP) == ()


def test_programs_that_drive_the_build_are_asked_for_by_name() -> None:
    with pytest.raises(HostError, match="no ninja was found"):
        toolchain.programs(replace(LAPTOP, tools={"cmake": WHEELS["cmake"]}))
