"""Builds tested on this machine: on the device that they are for if it is here, else on the CPU. llama-server, disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.proof import selftest
from nemotron_ops.builds.proof.selftest import Proof
from nemotron_ops.builds.proof.selftest_device import device_here, hidden
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import Backend
from nemotron_ops.builds.store import store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step


def prove_new(chosen: BuildPlan, made: Path, sources: Sources, report: Report) -> Proof:
    """Self-test the installed folder; without the device it is for, on the CPU. Raises SelfTestFailed."""
    env = dict(sources.env)
    if stub := toolchain.driver_stub(chosen, layout=sources.layout, facts=sources.facts):
        env["LD_LIBRARY_PATH"] = str(stub)
    backend = chosen.backend
    here = device_here(backend, chosen.cmake, sources.facts, selftest.device_names(made, env), env)
    if not here:
        env |= hidden(backend)
    gpu = here and backend is not Backend.CPU
    return _prove(backend, chosen.source.short, made, gpu=gpu, layout=sources.layout, env=env, report=report)


def prove_stored(build: Build, sources: Sources, report: Report) -> Build:
    """`build` with the proof that it lacks, if its device is here by now. Raises SelfTestFailed."""
    layout, env, plan = sources.layout, sources.env, build.manifest["plan"]
    backend = Backend(plan["backend"])
    if not device_here(backend, plan["cmake"], sources.facts, selftest.device_names(build.path, env), env):
        return build
    with store.building(layout, build.id):
        now = store.get(layout, build.id)
        if now is None or now.proven:  # another process was quicker
            return now or build
        report(Step(what="self-test", note=f"the device of build {build.id} is here by now, testing on it"))
        proof = _prove(backend, build.source.short, build.path, gpu=True, layout=layout, env=env, report=report)
        return store.amend(now, {"selftest": proof.to_json()})


def _prove(
    backend: Backend, commit: str, folder: Path, *, gpu: bool, layout: Layout, env: Mapping[str, str], report: Report
) -> Proof:
    workdir = store.new_dir(layout, f"{folder.name}.selftest")
    try:
        return selftest.prove(backend, commit, folder, workdir=workdir, env=env, report=report, gpu=gpu)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
