"""Completes NVIDIA's wheels of CUDA 12: the missing compiler, and headers for newer C libraries. Disk.

The nvcc wheel of CUDA 12 holds ptxas, libnvvm and headers, but no nvcc, cicc, cudafe++, fatbinary or nvlink (12.4, 12.8
and 12.9 were opened); Debian packages these of 12.4.1, as NVIDIA published them. The runtime wheel has no static
libcudart and no libcudadevrt, so programs use the shared libcudart (the options in plan.py), and an empty archive
replaces libcudadevrt.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath

from nemotron_ops.builds.packages import archive

BIN = PurePosixPath("usr/bin")
LIB = PurePosixPath("usr/lib/nvidia-cuda-toolkit")
FROM_BIN = ("nvlink", "cudafe++", "fatbinary", "bin2c", "__nvcc_device_query")
COPYRIGHT = PurePosixPath("usr/share/doc/nvidia-cuda-toolkit/copyright")
EMPTY_ARCHIVE = b"!<arch>\n"
# As in CUDA 13.0's own nvcc.profile; CUDA 12's wheels have cub and thrust directly below include/.
PROFILE = """
TOP              = $(_HERE_)/..

CICC_PATH        = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice

LD_LIBRARY_PATH += $(TOP)/lib:
PATH            += $(CICC_PATH):$(_HERE_):

INCLUDES        +=  "-I$(TOP)/$(_TARGET_DIR_)/include" $(_SPACE_)

LIBRARIES        =+ $(_SPACE_) "-L$(TOP)/$(_TARGET_DIR_)/lib$(_TARGET_SIZE_)/stubs" "-L$(TOP)/$(_TARGET_DIR_)/lib$(_TARGET_SIZE_)"

CUDAFE_FLAGS    +=
PTXAS_FLAGS     +=
"""  # noqa: E501

# Since these versions, glibc declares the functions with an exception specification, and C++ requires NVIDIA's
# declarations to agree. CUDA 13.0 has it for sinpi and cospi (crt/math_functions.h:2568), CUDA 12.4 for none.
SINCE_GLIBC = {"sinpi": 41, "sinpif": 41, "cospi": 41, "cospif": 41, "rsqrt": 42, "rsqrtf": 42}
NAMES = "|".join(SINCE_GLIBC)
# Declarations, up to the place of a specification. Those that have one already do not match.
DEVICE = re.compile(rf"extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ \w+\s+({NAMES})\(\w+ x\)(?=;)")
HOST = re.compile(rf"__func__\(\w+ ({NAMES})\((?:const )?\w+ a\)(?=\)[;\n])")
SPECIFIERS = "#if defined(__linux__)\n#include <features.h>\n#endif\n" + "".join(
    f"#if defined(__cplusplus) && defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= {minor})\n"
    f"#define NEMOTRON_OPS_GLIBC_2_{minor} noexcept(true)\n#else\n#define NEMOTRON_OPS_GLIBC_2_{minor}\n#endif\n"
    for minor in (41, 42)
)


def add_compiler(deb: Path, root: Path) -> None:
    """Add the compiler of Debian's package to the toolkit at `root`, with a profile that finds the other parts."""
    with tempfile.TemporaryDirectory(dir=root.parent) as room:
        archive.unpack(archive.deb_content(deb, Path(room)), root, rename=place)
    (root / "bin/nvcc.profile").write_text(PROFILE)
    (root / "lib/libcudadevrt.a").write_bytes(EMPTY_ARCHIVE)


def place(name: PurePosixPath) -> PurePosixPath | None:
    """The place of a file of Debian's package in a toolkit; None for files that are not needed."""
    if name.parent == BIN and name.name in FROM_BIN:
        return PurePosixPath("bin", name.name)
    if name in (LIB / "bin/nvcc", LIB / "bin/crt/link.stub", LIB / "bin/crt/prelink.stub"):
        return name.relative_to(LIB)
    if name == LIB / "bin/cicc":
        return PurePosixPath("nvvm/bin/cicc")
    return PurePosixPath("licences/debian-copyright") if name == COPYRIGHT else None


def agree_with_glibc(root: Path) -> None:
    """Make the toolkit's declarations agree with newer C libraries; nothing changes for older ones."""
    folder = root / "include/crt"
    declared, defined = folder / "math_functions.h", folder / "math_functions.hpp"
    text = declared.read_text() if declared.exists() else ""
    if names := frozenset(DEVICE.findall(text)):
        text = with_specifications(with_specifications(text, DEVICE, names), HOST, names)
        declared.write_text(SPECIFIERS + text)
        defined.write_text(with_specifications(defined.read_text(), HOST, names))


def with_specifications(text: str, declaration: re.Pattern[str], names: frozenset[str]) -> str:
    """The header `text` with the exception specifications of newer C libraries where it declares one of `names`."""

    def specified(found: re.Match[str]) -> str:
        return f"{found[0]} NEMOTRON_OPS_GLIBC_2_{SINCE_GLIBC[found[1]]}" if found[1] in names else found[0]

    return declaration.sub(specified, text)
