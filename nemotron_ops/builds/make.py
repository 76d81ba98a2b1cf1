"""Makes one prepared build: compiles, installs, self-tests and stores it. cmake, ninja, llama-server, disk.

    lock of the id ─▶ toolchain ─▶ configure ─▶ compile ─▶ install ─▶ self-test ─▶ store

A self-test that shows a known miscompile leads to a second build, with its fix.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from nemotron_ops import __version__
from nemotron_ops.builds import carry
from nemotron_ops.builds.compile import compiling, installing, ninja
from nemotron_ops.builds.plan import plan_json
from nemotron_ops.builds.prepared import Prepared, planned
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.proof.proofs import SelfTestFailed
from nemotron_ops.builds.source import source
from nemotron_ops.builds.spec import BuildRequest
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.options_json import options_json
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.errors import BuildError
from nemotron_ops.files import sha256_of
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step

WAIT_PERIOD_S = 0.5


def make(request: BuildRequest, prepared: Prepared) -> Build:
    """Make the build; after a known miscompile, once more with its fix. The source's files must be here.

    Raises the errors of every step.
    """
    try:
        return _make_locked(request, prepared)
    except SelfTestFailed as exc:
        fix = proofs.diagnose(exc.message, prepared.plan)
        if fix is None:
            raise
        installation, layout, failed = prepared.installation, prepared.installation.layout, prepared.plan
        note = f"{exc.message}; a known miscompile, building again with fix {fix}"
        installation.report(Step(what="self-test", note=note))
        options = replace(request.options, fixes=request.options.fixes | {fix})
        fixed = planned(options, failed.source, installation)
        notes = (*prepared.notes, f"built again with fix {fix}: {exc.message}")
        build = _make_locked(replace(request, options=options), replace(prepared, plan=fixed, notes=notes))
        store.remember_fixes(layout, failed.id, options.fixes)
        shutil.rmtree(store.work_dir(layout, failed.id), ignore_errors=True)
        shutil.rmtree(store.new_dir(layout, failed.id), ignore_errors=True)
        return build


def workplace(prepared: Prepared, lock: int) -> compiling.Workplace:
    """Where the plan is compiled, with its toolchain assembled. `lock` is the descriptor of the build's lock.

    Raises SourceError, HostError.
    """
    installation, plan = prepared.installation, prepared.plan
    layout = installation.layout
    toolchain.check_disk(plan, installation)
    programs = toolchain.programs(installation.facts)
    toolchain.assemble(plan, installation)
    place = compiling.Workplace(
        source=prepared.tree,
        folder=store.work_dir(layout, plan.id),
        log=log_file(layout, plan.id),
        steps=store.steps_file(layout),
        budget=layout.builds / ".jobs",
        cmake=programs.cmake,
        ninja=programs.ninja,
        lock=lock,
    )
    place.log.parent.mkdir(parents=True, exist_ok=True)
    place.log.write_text("")
    for note in plan.notes:
        installation.report(Step(what="plan", note=note))
    return place


def log_file(layout: Layout, build_id: str) -> Path:
    return layout.logs / "builds" / f"{build_id}.log"


def _make_locked(request: BuildRequest, prepared: Prepared) -> Build:
    """Make the build under the lock of its id; if another process has made it by then, returns that build."""
    layout, report, build_id = prepared.installation.layout, prepared.installation.report, prepared.plan.id
    waited = False
    while True:
        try:
            with build_lock.building(layout, build_id, timeout_s=0 if not waited else WAIT_PERIOD_S) as lock:
                if (waited or not request.force) and (build := store.get(layout, build_id)):
                    return build
                return _make(request, prepared, lock)
        except build_lock.Busy:
            if not waited:
                report(Step(what="wait", note=f"build {build_id} is being made by another process, waiting for it"))
            waited = True
            _show_progress_of(log_file(layout, build_id), report)


def _make(request: BuildRequest, prepared: Prepared, lock: int) -> Build:
    from nemotron_ops.builds.proof import selftest_here  # 210 ms, for httpx and gguf: only where something is tested

    installation, plan = prepared.installation, prepared.plan
    layout, report, work = installation.layout, installation.report, store.work_dir(installation.layout, plan.id)
    if request.force:
        shutil.rmtree(work, ignore_errors=True)
    place = workplace(prepared, lock)
    began = time.monotonic()
    unknown = compiling.configure(plan, place, report)
    compiled = compiling.compile_targets(plan, place, report)
    libraries = toolchain.shared_libraries(plan, installation)
    made = installing.install(
        plan, source=prepared.tree, work=work, to=store.new_dir(layout, plan.id), libraries=libraries
    )
    proof = selftest_here.prove_new(plan, made, installation)
    if not proof.whole and (tested := store.get(layout, plan.id)) and tested.proven:
        raise BuildError(
            f"cannot replace build {plan.id}: its device is not here to test the new one",
            hint="the build that was tested on it stays",
        )
    manifest = {
        "schema": 1,
        "id": plan.id,
        "made_at": store.now(),
        "made_by": f"nemotron-ops {__version__}",
        "version": source.version_of(prepared.tree),
        "platform": carry.platform_json(installation.facts, portable=plan.portable),
        "plan": plan_json(plan),
        "asked": options_json(request.options, plan.backend),
        "source_notes": list(prepared.notes),
        "unknown_options": list(unknown),
        "took_s": round(time.monotonic() - began, 1),
        "cpu_s": round(compiled.cpu_s, 1),
        "selftest": proof.to_json(),
        "files": {p.relative_to(made).as_posix(): sha256_of(p) for p in sorted(made.rglob("*")) if p.is_file()},
    }
    build = store.publish(layout, plan.id, manifest)
    shutil.rmtree(work, ignore_errors=True)
    return build


def _show_progress_of(log: Path, report: Report) -> None:
    """Report how far another process is, by the last progress line of its log."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - 65536))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return
    tick = next((t for line in reversed(lines) if (t := ninja.parse_tick(line))), None)
    if tick:
        report(Step(what="compile (another process)", done=tick.done, total=tick.total))
