"""Self-tests builds on this machine: on their own device if it is here, else on the CPU. llama-server, disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.proof import selftest
from nemotron_ops.builds.proof.selftest import Binaries, Proof
from nemotron_ops.builds.proof.selftest_device import device_here, hidden
from nemotron_ops.builds.spec import Backend
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.installation import Installation
from nemotron_ops.progress import Step


def prove_new(plan: BuildPlan, folder: Path, installation: Installation) -> Proof:
    """Self-test the installed folder; without the plan's device, on the CPU. Raises SelfTestFailed."""
    env = dict(installation.env)
    if stub := toolchain.driver_stub(plan, installation):
        env["LD_LIBRARY_PATH"] = str(stub)
    here = device_here(plan.backend, plan.cmake, installation.facts, selftest.device_names(folder, env), env)
    if not here:
        env |= hidden(plan.backend)
    binaries = Binaries(folder=folder, backend=plan.backend, commit=plan.source.short)
    return _prove(binaries, installation, env, gpu=here and plan.backend is not Backend.CPU)


def prove_stored(build: Build, installation: Installation) -> Build:
    """`build` with the proof that it lacks, if its device is here by now. Raises SelfTestFailed."""
    layout, env, plan = installation.layout, installation.env, build.manifest["plan"]
    backend = Backend(plan["backend"])
    if not device_here(backend, plan["cmake"], installation.facts, selftest.device_names(build.path, env), env):
        return build
    with build_lock.building(layout, build.id):
        now = store.get(layout, build.id)
        if now is None or now.proven:  # another process was quicker
            return now or build
        note = f"the device of build {build.id} is here by now, testing on it"
        installation.report(Step(what="self-test", note=note))
        binaries = Binaries(folder=build.path, backend=backend, commit=build.source.short)
        proof = _prove(binaries, installation, env, gpu=True)
        return store.amend(now, {"selftest": proof.to_json()})


def _prove(binaries: Binaries, installation: Installation, env: Mapping[str, str], *, gpu: bool) -> Proof:
    workdir = store.new_dir(installation.layout, f"{binaries.folder.name}.selftest")
    try:
        return selftest.prove(binaries, workdir=workdir, env=env, report=installation.report, gpu=gpu)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
