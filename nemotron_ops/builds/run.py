"""One build from question to proven binary. Git, httpx, cmake, ninja, llama-server, disk.

    prepare   which source, which plan; nothing is changed but caches
    ensure    have it already? else: source ─▶ configure ─▶ compile ─▶ install ─▶ self-test ─▶ store ─▶ current

Whatever interrupts this, the next run goes on: sources are cached, the compile folder of an id is kept until the
build is in the store, and ninja does only what is left.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nemotron_ops import __version__
from nemotron_ops.builds import carry, known_bad
from nemotron_ops.builds.compile import compiling, installing, ninja
from nemotron_ops.builds.disk_errors import disk_told
from nemotron_ops.builds.packages import pins
from nemotron_ops.builds.packages.download import hash_of
from nemotron_ops.builds.plan import BuildPlan, plan, plan_json
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.proof.proofs import SelfTestFailed
from nemotron_ops.builds.source import source
from nemotron_ops.builds.source.order import order
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import BuildOptions, BuildRequest, Origin, Source, SourceKind, without_secrets
from nemotron_ops.builds.store import store
from nemotron_ops.builds.store.options_json import asked_json
from nemotron_ops.builds.store.store import Build
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.errors import BuildError, SourceError
from nemotron_ops.host.facts import Facts
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step, silent

__all__ = [
    "BuildOptions",
    "BuildRequest",
    "Configured",
    "Prepared",
    "configure",
    "ensure_build",
    "existing",
    "log_file",
    "prepare",
]

WAIT_PERIOD_S = 0.5
LOCAL = frozenset({SourceKind.DIRECTORY, SourceKind.ARCHIVE, SourceKind.BUNDLE})


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan whose source is known exactly. `notes` say what was tried first and why it was left; `known_bugs`, what
    is known against this llama.cpp here.
    """

    plan: BuildPlan
    sources: Sources
    notes: tuple[str, ...] = ()
    known_bugs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A folder that cmake has prepared, and how many steps ninja would take in it."""

    plan: BuildPlan
    folder: Path
    steps: int


def ensure_build(
    request: BuildRequest, *, layout: Layout, facts: Facts, env: Mapping[str, str], report: Report
) -> Build:
    """The build that `request` means, made if the store does not have it; current afterwards, if asked.

    Does nothing, and asks no network, if that build exists; one whose device was not here is tested on it if it is by
    now. Two at once for the same build: one builds, the other waits. Raises the errors of every step; a failure leaves
    the current build as it was.
    """
    with disk_told():
        build = None if request.force else existing(request, layout=layout, facts=facts, env=env)
        if build is None:
            build = _build_somehow(request, layout=layout, facts=facts, env=env, report=report)
        if not build.proven:
            from nemotron_ops.builds.proof import (
                selftest_here,  # 210 ms, for httpx and gguf: only where something is tested
            )

            build = selftest_here.prove_stored(build, _sources(layout, facts, env, report), report)
        if request.activate and build.proven:
            store.use(layout, build)
    return build


def existing(request: BuildRequest, *, layout: Layout, facts: Facts, env: Mapping[str, str]) -> Build | None:
    """The build in the store that `request` means, as far as that can be told without asking anyone."""
    sources = _sources(layout, facts, env, silent)
    for origin in order(request, sources.pins):
        known = source.known_source(origin, sources)
        if known and (build := store.get(layout, _plan(request, known, sources).id)):
            return build
    return None


def prepare(request: BuildRequest, *, layout: Layout, facts: Facts, env: Mapping[str, str], report: Report) -> Prepared:
    """The plan for `request`: the first source that can be had, and what that means on this machine.

    Raises BuildError for a llama.cpp that is known to fail here, unless forced.
    """
    sources = _sources(layout, facts, env, report)
    notes: list[str] = []
    for origin in order(request, sources.pins):
        try:
            with disk_told():
                exact = _resolve(origin, request, sources)
        except SourceError as exc:
            _leave(origin, exc, notes, report)
            continue
        chosen = _plan(request, exact, sources)
        bugs = _check_known_bad(request, chosen, sources)
        return Prepared(plan=chosen, sources=sources, notes=tuple(notes), known_bugs=bugs)
    raise _no_source(notes)


def _build_somehow(
    request: BuildRequest, *, layout: Layout, facts: Facts, env: Mapping[str, str], report: Report
) -> Build:
    """Build from the first source that can be had, whole."""
    found = _with_source(request, _sources(layout, facts, env, report), report, anew=request.force)
    if isinstance(found, Build):
        return found
    return _build_and_repair(request, *found, report)


def _with_source(
    request: BuildRequest, sources: Sources, report: Report, *, anew: bool
) -> Build | tuple[Prepared, Path]:
    """A plan and the folder with its source, from the first place that has it; or the build that is there already,
    unless one is to be made `anew`.
    """
    notes: list[str] = []
    for origin in order(request, sources.pins):
        try:
            exact = _resolve(origin, request, sources)
            chosen = _plan(request, exact, sources)
            bugs = _check_known_bad(request, chosen, sources)
            if not anew and (build := store.get(sources.layout, chosen.id)):
                return build
            folder = source.tree(exact, sources)
        except SourceError as exc:
            _leave(origin, exc, notes, report)
            continue
        if notes:
            report(Step(what="source", note=f"using {exact.label} instead (llama.cpp {exact.short})"))
        return Prepared(plan=chosen, sources=sources, notes=tuple(notes), known_bugs=bugs), folder
    raise _no_source(notes)


def configure(
    request: BuildRequest, *, layout: Layout, facts: Facts, env: Mapping[str, str], report: Report
) -> Configured:
    """Source, toolchain and cmake's run for `request`, and nothing compiled. A build goes on from there.

    Raises the errors of every step.
    """
    with disk_told():
        found = _with_source(request, _sources(layout, facts, env, report), report, anew=True)
        assert not isinstance(found, Build)  # what is there already was not asked for
        prepared, folder = found
        with store.building(layout, prepared.plan.id, timeout_s=0) as lock:
            place = _workplace(prepared, folder, lock, report)
            compiling.configure(prepared.plan, place, report)
            left = compiling.outputs_pending(prepared.plan, place, prepared.plan.targets)
    return Configured(plan=prepared.plan, folder=place.folder, steps=len(left))


def _build_and_repair(request: BuildRequest, prepared: Prepared, folder: Path, report: Report) -> Build:
    """Build; if the self-test shows a known miscompile, once more with its fix."""
    try:
        return _build_locked(request, prepared, folder, report)
    except SelfTestFailed as exc:
        fix = proofs.diagnose(exc.message, prepared.plan)
        if fix is None:
            raise
        report(Step(what="self-test", note=f"{exc.message}; a known miscompile, building again with fix {fix}"))
        options = replace(request.options, fixes=request.options.fixes | {fix})
        again = replace(request, options=options)
        notes = (*prepared.notes, f"built again with fix {fix}: {exc.message}")
        fixed = _plan(again, prepared.plan.source, prepared.sources)
        build = _build_locked(again, replace(prepared, plan=fixed, notes=notes), folder, report)
        store.remember_fixes(prepared.sources.layout, prepared.plan.id, options.fixes)
        shutil.rmtree(store.work_dir(prepared.sources.layout, prepared.plan.id), ignore_errors=True)
        shutil.rmtree(store.new_dir(prepared.sources.layout, prepared.plan.id), ignore_errors=True)
        return build


def _build_locked(request: BuildRequest, prepared: Prepared, folder: Path, report: Report) -> Build:
    """Build under the lock of this id; if someone else did so meanwhile, theirs is taken."""
    layout, build_id = prepared.sources.layout, prepared.plan.id
    waited = False
    while True:
        try:
            with store.building(layout, build_id, timeout_s=0 if not waited else WAIT_PERIOD_S) as lock:
                if (waited or not request.force) and (build := store.get(layout, build_id)):
                    return build
                return _build(request, prepared, folder, lock, report)
        except store.Busy:
            if not waited:
                report(Step(what="wait", note=f"build {build_id} is being made by another process, waiting for it"))
            waited = True
            _relay(log_file(layout, build_id), report)


def _build(request: BuildRequest, prepared: Prepared, folder: Path, lock: int, report: Report) -> Build:
    from nemotron_ops.builds.proof import selftest_here  # 210 ms, for httpx and gguf: only where something is tested

    sources, chosen = prepared.sources, prepared.plan
    layout, work = sources.layout, store.work_dir(sources.layout, chosen.id)
    if request.force:
        shutil.rmtree(work, ignore_errors=True)
    place = _workplace(prepared, folder, lock, report)
    began = time.monotonic()
    unknown = compiling.configure(chosen, place, report)
    compiled = compiling.compile_targets(chosen, place, report)
    libraries = toolchain.shared_libraries(chosen, layout=layout, facts=sources.facts)
    made = installing.install(
        chosen, source=folder, work=work, to=store.new_dir(layout, chosen.id), libraries=libraries
    )
    proof = selftest_here.prove_new(chosen, made, sources, report)
    if not proof.whole and (tested := store.get(layout, chosen.id)) and tested.proven:
        raise BuildError(
            f"cannot replace build {chosen.id}: the device that it is for is not here to test the new one on",
            hint="the one that was tested there stays",
        )
    manifest = {
        "schema": 1,
        "id": chosen.id,
        "made_at": store.now(),
        "made_by": f"nemotron-ops {__version__}",
        "version": source.version_of(folder),
        "platform": carry.platform_json(sources.facts, portable=chosen.portable),
        "plan": plan_json(chosen),
        "asked": asked_json(request.options, chosen.backend),
        "source_notes": list(prepared.notes),
        "unknown_options": list(unknown),
        "took_s": round(time.monotonic() - began, 1),
        "cpu_s": round(compiled.cpu_s, 1),
        "selftest": proof.to_json(),
        "files": {p.relative_to(made).as_posix(): hash_of(p) for p in sorted(made.rglob("*")) if p.is_file()},
    }
    build = store.publish(layout, chosen.id, manifest)
    shutil.rmtree(work, ignore_errors=True)
    return build


def _workplace(prepared: Prepared, folder: Path, lock: int, report: Report) -> compiling.Workplace:
    """Where the plan is configured and compiled, with all that it takes. Raises SourceError, HostError."""
    sources, chosen = prepared.sources, prepared.plan
    layout = sources.layout
    toolchain.check_disk(chosen, layout=layout, facts=sources.facts)
    programs = toolchain.programs(sources.facts)
    toolchain.assemble(chosen, layout=layout, facts=sources.facts, env=sources.env, report=report)
    place = compiling.Workplace(
        source=folder, folder=store.work_dir(layout, chosen.id), log=log_file(layout, chosen.id),
        steps=store.steps_file(layout), budget=layout.builds / ".jobs", cmake=programs.cmake, ninja=programs.ninja,
        lock=lock,
    )  # fmt: skip
    place.log.parent.mkdir(parents=True, exist_ok=True)
    place.log.write_text("")
    for note in chosen.notes:
        report(Step(what="plan", note=note))
    return place


def _resolve(origin: Origin, request: BuildRequest, sources: Sources) -> Source:
    known = source.known_source(origin, sources)
    if request.offline and origin.kind not in LOCAL and not origin.place.startswith("file:"):
        if known and source.tree_path(known, sources).is_dir():
            return known
        raise SourceError(f"cannot get {origin.place} {origin.ref}: offline, and not here yet")
    return source.resolve(origin, sources)


def _plan(request: BuildRequest, exact: Source, sources: Sources) -> BuildPlan:
    """The plan, with the fixes that it was found to need here before."""
    layout, busy = sources.layout, store.count_building(sources.layout)

    def made(options: BuildOptions) -> BuildPlan:
        return plan(
            options, facts=sources.facts, source=exact, toolchains=layout.toolchains, env=sources.env, busy=busy
        )

    first = made(request.options)
    needed = store.fixes_needed(layout, first.id)
    return made(replace(request.options, fixes=request.options.fixes | needed)) if needed else first


def _check_known_bad(request: BuildRequest, chosen: BuildPlan, sources: Sources) -> tuple[str, ...]:
    """Say what is known against this llama.cpp here. Raises BuildError for what is sure to fail, unless forced."""
    found = known_bad.matching(
        known_bad.shipped(), number=chosen.source.number, backend=chosen.backend, facts=sources.facts,
        fixes=chosen.fixes, compiler=chosen.compilers.identity,
    )  # fmt: skip
    for bad in found:
        if bad.refuse and not request.force:
            raise BuildError(
                f"cannot recommend llama.cpp {chosen.source.label}: {bad.what} ({bad.issue})",
                hint=f"{bad.remedy}; `nemotron-ops build --force` builds it anyway",
            )
        sources.report(Step(what="known bug", note=bad.line))
    return tuple(bad.line for bad in found)


def log_file(layout: Layout, build_id: str) -> Path:
    return layout.logs / "builds" / f"{build_id}.log"


def _sources(layout: Layout, facts: Facts, env: Mapping[str, str], report: Report) -> Sources:
    return Sources(layout=layout, facts=facts, env=env, pins=pins.shipped(), report=report)


def _leave(origin: Origin, exc: SourceError, notes: list[str], report: Report) -> None:
    """Note aloud that `origin` did not work out."""
    note = f"{without_secrets(origin.place)} {origin.ref}: {exc.message}"
    notes.append(note)
    report(Step(what="source", note=note))


def _no_source(notes: list[str]) -> SourceError:
    return SourceError(
        "cannot get llama.cpp's source: " + "; ".join(notes),
        hint="give --source with a git URL, a folder, an archive, a git bundle or registry:PACKAGE==VERSION",
    )


def _relay(log: Path, report: Report) -> None:
    """Show how far the other process is, from the last line of progress in its log."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - 65536))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return
    tick = next((t for line in reversed(lines) if (t := ninja.parse_tick(line))), None)
    if tick:
        report(Step(what="compile (another process)", done=tick.done, total=tick.total))
