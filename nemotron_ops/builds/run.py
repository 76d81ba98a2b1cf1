"""One build, from request to proven binary. Git, httpx, cmake, ninja, llama-server, disk.

    prepare      which source, which plan; changes nothing but caches
    configure    source, toolchain and cmake's run; compiles nothing
    ensure       in the store already? else: find the source ─▶ make (make.py) ─▶ current

An interrupted build continues with the next run: sources are cached, the work folder of an id is kept until the build
is in the store, and ninja repeats no finished step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.builds import known_bad
from nemotron_ops.builds.compile import compiling
from nemotron_ops.builds.disk_errors import disk_errors_translated
from nemotron_ops.builds.make import make, workplace
from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.prepared import Prepared, planned
from nemotron_ops.builds.source import source
from nemotron_ops.builds.source.order import order
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import BuildOptions, BuildRequest, Origin, Source, SourceKind, without_secrets
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import BuildError, SourceError
from nemotron_ops.installation import Installation
from nemotron_ops.progress import Step

__all__ = [
    "BuildOptions",
    "BuildRequest",
    "Configured",
    "Prepared",
    "configure",
    "ensure_build",
    "existing",
    "prepare",
]

LOCAL = frozenset({SourceKind.DIRECTORY, SourceKind.ARCHIVE, SourceKind.BUNDLE})


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A folder that cmake has prepared, and how many steps ninja would run in it."""

    plan: BuildPlan
    folder: Path
    steps: int


def ensure_build(request: BuildRequest, installation: Installation) -> Build:
    """The build that `request` means, made if the store does not have it; then made current, if `request.activate`.

    A build that exists costs nothing and needs no network; one that was never tested on its device is tested now if
    the device is here. Two processes that want the same build: one builds, the other waits. Raises the errors of every
    step; a failure leaves the current build as it was.
    """
    layout = installation.layout

    def stored(plan: BuildPlan) -> Build | None:
        return None if request.force else store.get(layout, plan.id)

    with disk_errors_translated():
        build = None if request.force else existing(request, installation)
        if build is None:
            prepared = find_source(request, installation, needs_tree=lambda plan: stored(plan) is None)
            build = stored(prepared.plan) or make(request, prepared)
        if not build.proven:
            from nemotron_ops.builds.proof import selftest_here  # 210 ms, for httpx and gguf: only where needed

            build = selftest_here.prove_stored(build, installation)
        if request.activate and build.proven:
            store.use(layout, build)
    return build


def existing(request: BuildRequest, installation: Installation) -> Build | None:
    """The build in the store that `request` means, as far as that is known without the network."""
    sources = Sources(installation=installation)
    for origin in order(request, sources.pins):
        known = source.known_source(origin, sources)
        if known and (build := store.get(installation.layout, planned(request.options, known, installation).id)):
            return build
    return None


def prepare(request: BuildRequest, installation: Installation) -> Prepared:
    """The plan for `request`, from the first source that can be reached.

    Raises BuildError for a llama.cpp that is known to fail here, unless forced.
    """
    with disk_errors_translated():
        return find_source(request, installation, needs_tree=lambda plan: False)


def configure(request: BuildRequest, installation: Installation) -> Configured:
    """Source, toolchain and cmake's run for `request`, without compiling. A build continues from there.

    Raises the errors of every step.
    """
    with disk_errors_translated():
        prepared = find_source(request, installation, needs_tree=lambda plan: True)
        with build_lock.building(installation.layout, prepared.plan.id, timeout_s=0) as lock:
            place = workplace(prepared, lock)
            compiling.configure(prepared.plan, place, installation.report)
            left = compiling.outputs_pending(prepared.plan, place, prepared.plan.targets)
    return Configured(plan=prepared.plan, folder=place.folder, steps=len(left))


def find_source(
    request: BuildRequest, installation: Installation, *, needs_tree: Callable[[BuildPlan], bool]
) -> Prepared:
    """The first source that can be reached, and its plan; its files are fetched if `needs_tree(plan)`.

    Raises SourceError if none can be reached or a release tag was moved, BuildError for a llama.cpp that is known to
    fail here, unless forced.
    """
    sources, report = Sources(installation=installation), installation.report
    notes: list[str] = []
    for origin in order(request, sources.pins):
        try:
            exact = _resolve(origin, request, sources)
            plan = planned(request.options, exact, installation)
            bugs = _check_known_bad(request, plan, installation)
            if needs_tree(plan):
                source.tree(exact, sources)
                if notes:
                    report(Step(what="source", note=f"using {exact.label} instead (llama.cpp {exact.short})"))
        except source.MovedTag:
            raise
        except SourceError as exc:
            notes.append(f"{without_secrets(origin.place)} {origin.ref}: {exc.message}")
            report(Step(what="source", note=notes[-1]))
            continue
        return Prepared(plan=plan, installation=installation, notes=tuple(notes), known_bugs=bugs)
    raise SourceError(
        "cannot get llama.cpp's source: " + "; ".join(notes),
        hint="give --source with a git URL, a folder, an archive, a git bundle or registry:PACKAGE==VERSION",
    )


def _resolve(origin: Origin, request: BuildRequest, sources: Sources) -> Source:
    known = source.known_source(origin, sources)
    if request.offline and origin.kind not in LOCAL and not origin.place.startswith("file:"):
        if known and source.tree_path(known, sources).is_dir():
            return known
        raise SourceError(f"cannot get {origin.place} {origin.ref}: offline, and not here yet")
    return source.resolve(origin, sources)


def _check_known_bad(request: BuildRequest, plan: BuildPlan, installation: Installation) -> tuple[str, ...]:
    """Report the bugs known of this llama.cpp here. Raises BuildError for a sure failure, unless forced."""
    found = known_bad.matching(
        known_bad.shipped(),
        number=plan.source.number,
        backend=plan.backend,
        facts=installation.facts,
        fixes=plan.fixes,
        compiler=plan.compilers.identity,
    )
    for bug in found:
        if bug.refuse and not request.force:
            raise BuildError(
                f"cannot recommend llama.cpp {plan.source.label}: {bug.what} ({bug.issue})",
                hint=f"{bug.remedy}; `nemotron-ops build --force` builds it anyway",
            )
        installation.report(Step(what="known bug", note=bug.line))
    return tuple(bug.line for bug in found)
