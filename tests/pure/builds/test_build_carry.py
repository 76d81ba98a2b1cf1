"""Exported builds: their libraries, their requirements, and damaged archives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds.carry import check, needs, platform_json
from nemotron_ops.builds.compile.installing import install
from nemotron_ops.builds.plan import plan, plan_json
from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.errors import HostError, SourceError
from nemotron_ops.files import sha256_of
from nemotron_ops.host import Facts, Tool
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from tests.fakes.build_store import SOURCE
from tests.fakes.machines import H100, LAPTOP, RADEON, WHEELS, XEON_AMX, nvcc

TOOLKIT = ("libcudart.so", "libcublas.so", "libcublasLt.so")


def manifest(facts: Facts, **options: Any) -> dict[str, Any]:
    """The manifest of a build that was planned on `facts`."""
    made = plan(BuildOptions(**options), facts=facts, source=SOURCE, toolchains=Path("/t"), env={})
    platform = platform_json(facts, portable=made.portable)
    return {"id": "cpu-0c1e5709-3fa2b1c4", "platform": platform, "plan": plan_json(made), "files": {}}


def unpacked(folder: Path, content: dict[str, Any]) -> Path:
    """An unpacked archive with one program."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/llama-server").write_text("x")
    if content.get("files") == {}:
        content = {**content, "files": {"bin/llama-server": sha256_of(folder / "bin/llama-server")}}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_a_build_comes_in_where_it_can_run(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "b", manifest(LAPTOP))
    assert check(folder, LAPTOP)["id"] == "cpu-0c1e5709-3fa2b1c4"
    with pytest.raises(HostError, match="this CPU lacks avx2"):
        check(folder, replace(LAPTOP, cpu_flags=frozenset({"sse2"})))


def test_a_build_without_amx_code_asks_for_no_cpu_with_amx(tmp_path: Path) -> None:
    plain = replace(XEON_AMX, cpu_flags=frozenset({"avx512f"}))
    assert check(unpacked(tmp_path / "fixed", manifest(XEON_AMX)), plain)
    newer = {**XEON_AMX.tools, "cxx": Tool(path="/usr/bin/g++-13", version=(13, 2), kind="gcc")}
    with pytest.raises(HostError, match="this CPU lacks amx"):
        check(unpacked(tmp_path / "whole", manifest(replace(XEON_AMX, tools=newer))), plain)


def without(part: str) -> Callable[[dict[str, Any]], object]:
    *path, last = part.split(".")

    def change(value: dict[str, Any]) -> object:
        for word in path:
            value = value[word]
        return value.pop(last)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("platform"), "has no 'platform'"),
        (without("files"), "has no 'files'"),
        (without("plan"), "has no 'plan'"),
        (without("plan.backend"), "has no 'backend'"),
        (without("plan.source.commit"), "has no 'commit'"),
        (without("platform.isa"), "has no 'isa'"),
        (lambda m: m.update(files=["bin/llama-server"]), "cannot be read"),
        (lambda m: m.update(platform="linux"), "cannot be read"),
        (lambda m: m["plan"].update(backend="abacus"), "cannot be read: 'abacus'"),
        (lambda m: m.update(id="../../etc"), "is not one of nemotron-ops"),
    ],
)
def test_a_manifest_that_lacks_a_part_is_an_error_that_says_so(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    content = manifest(LAPTOP)
    change(content)
    with pytest.raises(SourceError, match=said):
        check(unpacked(tmp_path / "b", content), LAPTOP)


def test_what_another_machine_needs_is_said() -> None:
    found = needs(manifest(LAPTOP))
    assert found[0] == "Linux on x86_64, glibc 2.36 or newer"
    assert any("instruction sets" in need for need in found)
    assert any("libgomp1" in need for need in found)
    assert not any("instruction sets" in need for need in needs(manifest(LAPTOP, portable=True)))
    zig = manifest(replace(LAPTOP, tools=WHEELS), backend=Backend.CPU, zig=True)
    assert not any("libgomp" in need for need in needs(zig))
    assert any("ROCm" in need for need in needs(manifest(RADEON)))


def test_what_another_machine_needs_for_its_gpu_is_said() -> None:
    assert needs(manifest(H100))[-1] == "a GPU of 90-real, and NVIDIA's driver 580 or newer"
    system = replace(H100, tools={**H100.tools, **nvcc(12, 9, 41)})
    driver, libraries = needs(manifest(system))[-2:]
    assert "driver 525 or newer" in driver
    assert "CUDA 12's libcudart, libcublas and libcublasLt, in /usr/local/cuda/lib64" in libraries
    assert "libcublas" not in " ".join(needs(manifest(system, portable=True)))


def toolkit(root: Path, *lacking: str) -> Facts:
    """A machine with a system CUDA toolkit at `root`, laid out by NVIDIA's installer."""
    (root / "targets/x86_64-linux/lib").mkdir(parents=True)
    (root / "lib64").symlink_to("targets/x86_64-linux/lib")
    for name in set(TOOLKIT) - set(lacking):
        (root / "lib64" / f"{name}.12.9.79").write_text(name)
        (root / "lib64" / f"{name}.12").symlink_to(f"{name}.12.9.79")
        (root / "lib64" / name).symlink_to(f"{name}.12")
    return replace(H100, tools={**H100.tools, **nvcc(12, 9, 41, path=str(root / "bin/nvcc"))})


def test_a_portable_build_carries_the_systems_cuda_libraries_and_looks_beside_itself(
    tmp_path: Path, layout: Layout
) -> None:
    facts = toolkit(tmp_path / "cuda")
    made = plan(BuildOptions(portable=True), facts=facts, source=SOURCE, toolchains=layout.toolchains, env={})
    assert made.cmake["CMAKE_INSTALL_RPATH"] == "$ORIGIN;$ORIGIN/../cuda/lib"
    libraries = toolchain.shared_libraries(made, Installation(layout=layout, env={}, known=facts))
    (tmp_path / "work/bin").mkdir(parents=True)
    for name in made.targets:
        (tmp_path / "work/bin" / name).write_text(name)
    to = install(made, source=tmp_path, work=tmp_path / "work", to=tmp_path / "to", libraries=libraries)
    shutil.rmtree(tmp_path / "cuda")
    carried = {path.name: path.read_text() for path in (to / "cuda/lib").iterdir()}
    assert carried == {f"{name}.12": name for name in TOOLKIT}


def test_a_build_for_this_machine_uses_the_systems_cuda_libraries_where_they_are(
    tmp_path: Path, layout: Layout
) -> None:
    facts = toolkit(tmp_path / "cuda")
    made = plan(BuildOptions(), facts=facts, source=SOURCE, toolchains=layout.toolchains, env={})
    assert made.cmake["CMAKE_INSTALL_RPATH"] == f"$ORIGIN;{tmp_path / 'cuda/lib64'}"
    assert toolchain.shared_libraries(made, Installation(layout=layout, env={}, known=facts)) == ()


def test_a_toolkit_without_a_library_to_carry_is_refused_before_compiling(tmp_path: Path, layout: Layout) -> None:
    facts = toolkit(tmp_path / "cuda", "libcublasLt.so")
    made = plan(BuildOptions(portable=True), facts=facts, source=SOURCE, toolchains=layout.toolchains, env={})
    with pytest.raises(HostError, match=r"has no libcublasLt\.so"):
        toolchain.assemble(made, Installation(layout=layout, env={}, known=facts))
