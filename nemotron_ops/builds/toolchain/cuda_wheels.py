"""Assembles a CUDA toolkit from NVIDIA's wheels, without root. httpx, cc, disk.

The wheels hold compiler (for CUDA 12: cuda12.py), headers and libraries, but not in the layout that cmake and the
linker expect. So after unpacking, programs get their mode bits and libraries their unversioned names, `lib64` and
`targets/` become links, and a stub replaces the driver's library when linking on a machine without a driver.

    cuda-13.0.2-1a2b3c4d/bin/nvcc, nvvm/, include/, lib/      the toolkit
    …/lib/stubs/libcuda.so                                    only for the linker
    …/driver-stub/libcuda.so.1                                only for self-tests on machines without a driver
    …/complete.json                                           which wheels, by hash; written last

A stub must never be called libcuda.so.1 in a folder of the run path: it would shadow the real driver.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nemotron_ops import proc
from nemotron_ops.builds.packages import archive
from nemotron_ops.builds.packages.wheel_files import check_disk, fetch_deb, fetch_wheels
from nemotron_ops.builds.packages.wheel_pins import Deb, Wheel, cuda_folder, cuda_part, debs_for, wheels_for
from nemotron_ops.builds.toolchain import cuda12
from nemotron_ops.errors import HostError
from nemotron_ops.files import locked, sync_dir, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.progress import Step

RUNTIME_LIBRARIES = ("libcudart.so", "libcublas.so", "libcublasLt.so")  # all that a built llama-server needs
TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}
UNPACKED_FACTOR = 1.7  # unpacked size over download size
HINT = "install a CUDA toolkit (https://developer.nvidia.com/cuda-downloads) and put its nvcc on the PATH"
DEB_HINT = (
    "NEMOTRON_OPS_DEBIAN_MIRROR names another mirror of Debian's archive, or a file: URL of a copy; or install a CUDA "
    "12 toolkit (https://developer.nvidia.com/cuda-toolkit-archive) and put its nvcc on the PATH"
)
LICENCE = "https://docs.nvidia.com/cuda/eula/index.html"


def assembled(toolchains: Path, version: str, machine: str) -> Path | None:
    """The toolkit's folder, if it is complete."""
    root = toolchains / cuda_folder(version, machine)
    return root if (root / "complete.json").exists() else None


def assemble(version: str, cc: str, installation: Installation) -> Path:
    """The folder of toolkit `version`, assembled if it is not there yet. Raises SourceError, HostError."""
    toolchains, cache, machine = (
        installation.layout.toolchains,
        installation.layout.cache / "wheels",
        installation.facts.machine,
    )
    env, report = installation.env, installation.report
    name = cuda_folder(version, machine)
    with locked(toolchains / f".{name}.lock"):
        if ready := assembled(toolchains, version, machine):
            return ready
        wheels, debs = wheels_for(cuda_part(version), "Linux", machine), debs_for(cuda_part(version), machine)
        parts: tuple[Wheel | Deb, ...] = (*wheels, *debs)
        check_disk("the CUDA toolkit", parts, cache=cache, to=toolchains, unpacked_factor=UNPACKED_FACTOR)
        also = " and Debian's package of its compiler" if debs else ""
        note = f"CUDA {version} comes as NVIDIA's wheels{also}, under NVIDIA's licence: {LICENCE}"
        report(Step(what="CUDA toolkit", note=note))
        paths = fetch_wheels(wheels, cache=cache, env=env, report=report, hint=HINT)
        packages = tuple(fetch_deb(deb, cache=cache, env=env, report=report, hint=DEB_HINT) for deb in debs)
        made = toolchains / f".{name}.new"
        shutil.rmtree(made, ignore_errors=True)
        for i, path in enumerate((*paths, *packages)):
            report(Step(what="unpack CUDA toolkit", done=i, total=len(parts)))
            unpack = cuda12.add_compiler if path in packages else unpack_wheel
            unpack(path, made)
        report(Step(what="unpack CUDA toolkit", done=len(parts), total=len(parts)))
        finish_layout(made, machine)
        make_stub(made, cc, env)
        write_json(made / "complete.json", {part.file: part.sha256 for part in parts})
        os.rename(made, toolchains / name)
        sync_dir(toolchains)
        for path in (*paths, *packages):
            path.unlink()  # half a gigabyte that is unpacked by now
    return toolchains / name


def unpack_wheel(path: Path, root: Path) -> None:
    """Unpack the toolkit's part of a wheel into `root`, with its licence."""

    def rename(name: PurePosixPath) -> PurePosixPath | None:
        if name.parts[0] == "nvidia" and len(name.parts) > 2:  # nvidia/cu13/bin/nvcc, nvidia/cuda_nvcc/bin/ptxas
            return None if name.name == "__init__.py" else name.relative_to(*name.parts[:2])
        if "licenses" in name.parts or name.name in ("License.txt", "LICENSE"):
            return PurePosixPath("licences", path.name.split("-")[0], name.name)
        return None

    archive.unpack(path, root, rename=rename)


def finish_layout(root: Path, machine: str) -> None:
    """Finish the layout after unpacking: mode bits (zip drops them), and the names that tools look for."""
    for folder in (root / "bin", root / "nvvm" / "bin"):
        for program in folder.glob("*"):
            if program.is_file():
                program.chmod(0o755)
    _link(root / "lib64", "lib")
    target = root / "targets" / TARGETS[machine]
    target.mkdir(parents=True, exist_ok=True)
    _link(target / "lib", "../../lib")
    _link(target / "include", "../../include")
    for library in sorted((root / "lib").glob("lib*.so.*")):
        plain = library.with_name(library.name.partition(".so")[0] + ".so")
        if not plain.exists():
            _link(plain, library.name)
    cuda12.agree_with_glibc(root)


def stub_source(preprocessed: str) -> str:
    """C source of a driver library whose every function says "no device", from a preprocessed cuda.h."""
    names = sorted(set(re.findall(r"\bCUresult\s+(?:__stdcall\s+)?(cu\w+)\s*\(", preprocessed)))
    return "".join(f"int {name}(void) {{ return 100; }}\n" for name in names)  # 100: CUDA_ERROR_NO_DEVICE


def make_stub(root: Path, cc: str, env: Mapping[str, str]) -> None:
    """Make the driver's library for the linker, from cuda.h. Raises HostError."""
    stubs, driver = root / "lib" / "stubs", root / "driver-stub"
    stubs.mkdir(parents=True, exist_ok=True)
    driver.mkdir(exist_ok=True)
    header = proc.run([cc, "-E", "-P", f"-I{root / 'include'}", root / "include" / "cuda.h"], env=env, timeout_s=120)
    source = stubs / "libcuda.c"
    source.write_text(stub_source(header.stdout))
    flags: list[str | Path] = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", stubs / "libcuda.so", source]
    made = proc.run([cc, *flags], env=env, timeout_s=120)
    if not header.ok or not made.ok:
        why = (header.stderr + made.stderr).strip().splitlines()
        raise HostError(f"cannot make the driver stub of the CUDA toolkit: {why[0] if why else 'the compiler failed'}")
    _link(driver / "libcuda.so.1", "../lib/stubs/libcuda.so")


def runtime_libraries(root: Path) -> tuple[Path, ...]:
    """The libraries that a built program needs beside itself, by the names that it loads (libcudart.so.13)."""
    found = [p for name in RUNTIME_LIBRARIES for p in sorted((root / "lib").glob(f"{name}.*"))]
    return tuple(p for p in found if not p.is_symlink())


def _link(at: Path, to: str) -> None:
    if not at.is_symlink() and not at.exists():
        at.symlink_to(to)
