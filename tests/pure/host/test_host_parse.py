"""The probe's parsers, on recorded output of real programs."""

from __future__ import annotations

import pytest

from nemotron_ops.host import parse
from nemotron_ops.policy import GIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation", ("gcc", (12, 2, 0))),
        ("c++ (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\nCopyright (C) 2023", ("gcc", (13, 3, 0))),
        ("Apple clang version 16.0.0 (clang-1600.0.26.3)\nTarget: arm64-apple-darwin", ("apple-clang", (16, 0, 0))),
        ("Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu", ("clang", (14, 0, 6))),
        ("Ubuntu clang version 18.1.3 (1ubuntu1)", ("clang", (18, 1, 3))),
        ("", ("", ())),
    ],
)
def test_a_compiler_is_known_by_its_own_version_not_its_packages(text: str, expected: object) -> None:
    assert parse.compiler(text) == expected


def test_nvcc_says_its_release() -> None:
    text = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\nBuild x"
    assert parse.nvcc_version(text) == (13, 0, 88)
    assert parse.nvcc_version("bash: nvcc: command not found") == ()


def test_several_gpus_of_several_kinds_are_read_from_nvidia_smi() -> None:
    text = (
        "0, GPU-aa, NVIDIA H100 80GB HBM3, 9.0, 81559, 81000, 580.65.06\n"
        "1, GPU-bb, NVIDIA GeForce RTX 3090, 8.6, 24576, 24000, 580.65.06\n"
        "2, GPU-cc, NVIDIA GB10, 12.1, [N/A], [N/A], 580.65.06\n"
    )
    gpus, driver = parse.nvidia_smi(text)
    assert [(g.name, g.compute_capability) for g in gpus] == [
        ("NVIDIA H100 80GB HBM3", (9, 0)),
        ("NVIDIA GeForce RTX 3090", (8, 6)),
        ("NVIDIA GB10", (12, 1)),
    ]
    assert gpus[0].memory_bytes == 81559 * 1024 * 1024
    assert [g.unified for g in gpus] == [False, False, True]
    assert driver == "580.65.06"


def test_an_nvidia_smi_that_knows_no_compute_capability_gives_none() -> None:
    gpus, _ = parse.nvidia_smi("0, GPU-aa, Tesla K80, [Not Supported], 11441, 11000, 470.57\n")
    assert gpus[0].compute_capability is None


def test_an_nvidia_smi_that_failed_gives_no_gpus() -> None:
    assert parse.nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == ((), "")


def test_the_drivers_cuda_is_in_the_header() -> None:
    header = "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |"
    assert parse.nvidia_smi_cuda(header) == (13, 0)
    assert parse.nvidia_smi_cuda("no devices") is None


@pytest.mark.parametrize(("target", "name"), [(110000, "gfx1100"), (90010, "gfx90a"), (90402, "gfx942"), (0, "")])
def test_amd_architectures_have_their_names(target: int, name: str) -> None:
    assert parse.gfx_name(target) == name


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("", None)]
)
def test_a_cgroup_quota_counts_as_whole_cpus(text: str, cpus: int | None) -> None:
    assert parse.cpu_max(text) == cpus


@pytest.mark.parametrize(("text", "limit"), [("max", None), (str(2 * GIB), 2 * GIB), (str((1 << 63) - 4096), None)])
def test_a_memory_limit_near_two_to_the_63_is_none(text: str, limit: int | None) -> None:
    assert parse.memory_limit(text) == limit


def test_cpuinfo_is_read_on_x86_and_arm() -> None:
    x86 = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nflags\t\t: x\n"
    assert parse.cpuinfo(x86) == ("AMD EPYC 9B14", frozenset({"fpu", "avx2", "avx512f"}))
    arm = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd4f\n"
    assert parse.cpuinfo(arm) == ("0xd4f", frozenset({"fp", "asimd", "sve"}))


def test_software_renderers_are_no_vulkan_gpus() -> None:
    text = (
        "GPU0:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n\tdeviceName = AMD Radeon RX 7900\n"
        "GPU1:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName = llvmpipe\n"
    )
    assert parse.vulkan_devices(text) == ("AMD Radeon RX 7900",)


def test_os_release_values_lose_their_quotes() -> None:
    assert parse.os_release('ID=ubuntu\nID_LIKE="debian"\n# x\n') == {"ID": "ubuntu", "ID_LIKE": "debian"}
