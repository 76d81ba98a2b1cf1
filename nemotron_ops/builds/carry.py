"""Exports a build as one archive, and imports one, checked and self-tested. Disk, llama-server.

An archive holds the build's folder: programs, libraries, and the manifest with the sha256 of every file. It is imported
only where it can run (system, processor, C library, instruction sets), if every file has its hash of the manifest, and
if the self-test passes here too. The export names everything else that the build `needs`.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nemotron_ops.builds import backends
from nemotron_ops.builds.packages import archive
from nemotron_ops.builds.spec import Backend, Fix, source_from_json
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.toolchain import cuda
from nemotron_ops.builds.toolchain.compilers import isa
from nemotron_ops.errors import BuildError, HostError, SourceError
from nemotron_ops.files import read_json, sha256_of
from nemotron_ops.host.facts import Facts
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step

BUILD_ID = re.compile(r"[a-z]+(-portable)?-x?[0-9a-f]{8}-[0-9a-f]{8}")  # also a safe name for a folder


def platform_json(facts: Facts, *, portable: bool) -> dict[str, Any]:
    """The machine that a build made on `facts` requires, for its manifest."""
    return {
        "system": facts.system,
        "machine": facts.machine,
        "glibc": list(facts.glibc or ()),
        "isa": [] if portable else isa(facts),
    }


def refuse_platform(needed: Mapping[str, Any], facts: Facts, *, fixes: Collection[str] = ()) -> str:
    """Why a build that requires `needed` cannot run on `facts`; empty if it can. `fixes` are the build's own."""
    if (needed["system"], needed["machine"]) != (facts.system, facts.machine):
        return f"it is for {needed['system']} on {needed['machine']}, this is {facts.system} on {facts.machine}"
    if needed["glibc"] and tuple(needed["glibc"]) > (facts.glibc or (0, 0)):
        return f"it needs glibc {'.'.join(str(n) for n in needed['glibc'])} or newer"
    unused = backends.AMX_CPU_FLAGS if Fix.NO_AMX in fixes else frozenset()
    if lacking := sorted(set(needed["isa"]) - facts.cpu_flags - unused):
        return f"this CPU lacks {', '.join(lacking)}; a build made with --portable would run"
    return ""


def needs(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The machine that the build of `manifest` needs, in words."""
    platform, plan = manifest["platform"], manifest["plan"]
    glibc = f", glibc {'.'.join(str(n) for n in platform['glibc'])} or newer" if platform["glibc"] else ""
    found = [f"{platform['system']} on {platform['machine']}{glibc}"]
    if platform["isa"]:
        found.append("a CPU with the instruction sets of this one (--portable builds for all)")
    if platform["system"] == "Linux" and not plan["compiler"].startswith("zig"):
        found.append("libstdc++ and libgomp (packages libstdc++6 and libgomp1 on Debian and Ubuntu)")
    return (*found, *_gpu_needs(plan))


def _gpu_needs(plan: Mapping[str, Any]) -> list[str]:
    match Backend(plan["backend"]):
        case Backend.CUDA:
            release = tuple(int(n) for n in plan["cuda"].split("."))
            found = [f"a GPU of {', '.join(plan['archs'])}, and NVIDIA's {cuda.driver_for(release)}"]
            fixed = [p for p in plan["cmake"].get("CMAKE_INSTALL_RPATH", "").split(";") if p.startswith("/")]
            carried = "(--portable includes them)"
            return found + [
                f"CUDA {release[0]}'s libcudart, libcublas and libcublasLt, in {p} {carried}" for p in fixed
            ]
        case Backend.HIP:
            return [f"a GPU of {', '.join(plan['archs'])}, and the libraries of ROCm: hip, hipblas, rocblas"]
        case Backend.VULKAN:
            return ["libvulkan, and a Vulkan driver"]
        case Backend.CPU | Backend.METAL:
            return []


def export_build(build: Build, to: Path, report: Report) -> Path:
    """Write `build` as an archive: `to`, or ID.tar.gz in the folder `to`. Raises BuildError."""
    target = to / f"{build.id}.tar.gz" if to.is_dir() else to
    part = target.with_name(f".{target.name}.part")
    names = sorted(p for p in build.path.rglob("*") if not p.is_dir())
    try:
        with tarfile.open(part, "w:gz", compresslevel=6) as tar:
            for i, path in enumerate(names):
                report(Step(what="export", done=i, total=len(names)))
                tar.add(path, arcname=f"{build.id}/{path.relative_to(build.path)}")
        report(Step(what="export", done=len(names), total=len(names)))
        os.replace(part, target)
    except OSError as exc:
        raise BuildError(f"cannot export build {build.id} to {target}: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)
    return target


def import_build(packed: Path, installation: Installation, *, activate: bool) -> Build:
    """Take the build in archive `packed` into the store, checked and self-tested.

    Raises SourceError for an archive that contradicts its manifest, HostError where it cannot run, BuildError.
    """
    from nemotron_ops.builds.proof import selftest  # 210 ms, for httpx and gguf

    layout = installation.layout
    if not packed.is_file():
        raise SourceError(f"cannot import {packed}: no such file")
    scratch = store.new_dir(layout, f"import-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        archive.unpack(packed, scratch)
        folder = next((p for p in scratch.iterdir() if (p / store.MANIFEST).is_file()), None)
        if folder is None:
            raise SourceError(f"cannot import {packed.name}: it holds no build")
        manifest = check(folder, installation.facts)
        with build_lock.building(layout, manifest["id"]):
            if build := store.get(layout, manifest["id"]):
                return _activated(layout, build, activate=activate)
            made = store.new_dir(layout, manifest["id"])
            shutil.rmtree(made, ignore_errors=True)
            os.rename(folder, made)
            backend, source = Backend(manifest["plan"]["backend"]), source_from_json(manifest["plan"]["source"])
            binaries = selftest.Binaries(folder=made, backend=backend, commit=source.short)
            proof = selftest.prove(
                binaries, workdir=scratch / "selftest", env=installation.env, report=installation.report
            )
            build = store.publish(
                layout, manifest["id"], {**manifest, "selftest": proof.to_json(), "imported_at": store.now()}
            )
            return _activated(layout, build, activate=activate)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check(folder: Path, facts: Facts) -> dict[str, Any]:
    """The manifest of the unpacked build in `folder`, after a check of its files and of this machine."""
    manifest = read_json(folder / store.MANIFEST)
    if not isinstance(manifest, dict) or not BUILD_ID.fullmatch(str(manifest.get("id"))):
        raise SourceError("cannot import the build: its manifest is not one of nemotron-ops")
    try:
        needed, plan, files = manifest["platform"], manifest["plan"], dict(manifest["files"])
        wrong = refuse_platform(needed, facts, fixes=plan.get("fixes", ()))
        Backend(plan["backend"]), source_from_json(plan["source"])
    except KeyError as exc:
        raise SourceError(f"cannot import build {manifest['id']}: its manifest has no {exc}") from exc
    except (AttributeError, TypeError, ValueError) as exc:
        raise SourceError(f"cannot import build {manifest['id']}: its manifest cannot be read: {exc}") from exc
    if wrong:
        raise HostError(f"cannot import build {manifest['id']}: {wrong}")
    _check_files(folder, manifest["id"], files)
    return manifest


def _check_files(folder: Path, build_id: str, files: Mapping[str, str]) -> None:
    """Raises SourceError if the files of `folder` differ from `files`, by name or by hash."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}
    expected = {name: sha for name, sha in files.items() if not (folder / name).is_symlink()}
    if found - {store.MANIFEST} != set(expected):
        raise SourceError(f"cannot import build {build_id}: files are missing or were added")
    for name, sha256 in expected.items():
        if sha256_of(folder / name) != sha256:
            raise SourceError(f"cannot import build {build_id}: {name} differs from its manifest")


def _activated(layout: Layout, build: Build, *, activate: bool) -> Build:
    if activate:
        store.use(layout, build)
    return build
