"""Prepares a deploy to one target: reads its facts, packs what is sent, makes the plan. SSH, pip, disk.

Nothing on the target is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.deploy.artifacts.bundle import Platform, make_bundle, pack_folder
from nemotron_ops.deploy.artifacts.fits import SpaceNeeded, check_room, why_not_send
from nemotron_ops.deploy.remote.session import check_hold
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.facts import Site, TargetFacts, check_target, site_for
from nemotron_ops.deploy.steps.plan import deploy_plan
from nemotron_ops.deploy.steps.probe import facts_script, parse_facts
from nemotron_ops.deploy.steps.release import Artifact, DeployPlan, Release, Request
from nemotron_ops.errors import DeployError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import Report
from nemotron_ops.service.spec import Scope


@dataclass(frozen=True, kw_only=True)
class LocalBuild:
    """A llama.cpp build of this machine that may be sent instead of building on the target."""

    id: str
    path: Path
    manifest: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model of this machine that is to be sent. `files`: name on the target, local path, sha256."""

    recipe: str
    files: tuple[tuple[str, Path, str], ...]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callbacks around the switch of one target: a balancer drains it before, and takes it back after.

    `lock` is held meanwhile: a balancer loses one target at a time.
    """

    before_switch: Callable[[str, Report], None] = lambda target, report: None
    after_switch: Callable[[str], None] = lambda target: None
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One deploy to some targets."""

    request: Request
    cache: Path
    who: str
    now: str
    why: str = ""
    build: LocalBuild | None = None
    must_send: bool = False  # fail where the build does not fit, instead of building on the target
    compile_bytes: Mapping[str, int] = field(default_factory=dict)  # disk that a build takes, for each backend
    keys: Path | None = None  # file of API keys, as `keys create` writes it
    models: tuple[LocalModel, ...] = ()
    force: bool = False
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, kw_only=True)
class PreparedTarget:
    """A target with its facts, its plan, and the local files that its steps send."""

    connection: Connection
    facts: TargetFacts
    site: Site
    plan: DeployPlan
    files: Mapping[str, Path]  # artifact -> local path
    notes: tuple[str, ...] = ()

    @property
    def serving(self) -> bool:
        """Whether this release serves on the target already, and is marked good."""
        return self.facts.current == self.plan.release and self.plan.release in self.facts.good


def look(connection: Connection, scope: Scope) -> tuple[TargetFacts, Site]:
    """The facts of a target, and where its releases live."""
    done = connection.sh(facts_script(scope))
    facts = parse_facts(done.stdout)
    return facts, site_for(scope, home=facts.home)


def with_sudo_if_needed(connection: Connection, scope: Scope, facts: TargetFacts) -> Connection:
    """The connection, with sudo for a system service where the user is not root."""
    return replace(connection, sudo=True) if scope is Scope.SYSTEM and facts.uid != 0 else connection


def prepare_target(connection: Connection, job: Job, *, report: Report) -> PreparedTarget:
    """Read a target's facts and make its plan. Raises DeployError if it cannot be deployed to."""
    request, target = job.request, connection.target
    facts, site = look(connection, request.scope)
    check_target(target, facts, request.scope)
    if not job.force:
        check_hold(target, facts.hold, "deploy to")
    platform = Platform(python=facts.python_version, machine=facts.machine, glibc=facts.glibc)
    bundle = make_bundle(platform, cache=job.cache, report=report)
    files = {bundle.path.name: bundle.path}
    build, notes = _build(job, facts, target, files)
    release = Release(
        version=bundle.version,
        bundle=Artifact(name=bundle.path.name, sha256=bundle.sha256),
        build_id=job.build.id if job.build and build else "",
        build=build,
        keys=_keys(job, files),
        models=_models(job, files),
    )
    context = Context(request=request, release=release, facts=facts, site=site, who=job.who, now=job.now, why=job.why)
    connection, plan = with_sudo_if_needed(connection, request.scope, facts), deploy_plan(context)
    prepared = PreparedTarget(connection=connection, facts=facts, site=site, plan=plan, files=files, notes=notes)
    if not prepared.serving:
        check_room(target, facts, site, _space(job, facts, release, files))
    return prepared


def _build(
    job: Job, facts: TargetFacts, target: str, files: dict[str, Path]
) -> tuple[Artifact | None, tuple[str, ...]]:
    """The build as an artifact if it runs on the target; else a note that says why not."""
    if not job.build:
        return None, ()
    why_not = why_not_send(job.build.manifest, facts, asked=job.request.backend)
    if why_not and job.must_send:
        raise DeployError(
            f"cannot send build {job.build.id} to {target}: {why_not}",
            hint="leave out `--build send` to build on the target",
        )
    if why_not:
        note = f"{target}: llama.cpp will be built there, build {job.build.id} of this machine is not sent: {why_not}"
        return None, (note,)
    path, sha256 = pack_folder(job.build.path, job.cache, prefix=job.build.id)
    artifact = Artifact(name=f"build-{job.build.id}.tar", sha256=sha256)
    files[artifact.name] = path
    return artifact, ()


def _keys(job: Job, files: dict[str, Path]) -> Artifact | None:
    if not job.keys:
        return None
    sha256 = sha256_of(job.keys)
    keys = Artifact(name=f"keys-{sha256[:16]}.json", sha256=sha256)
    files[keys.name] = job.keys
    return keys


def _models(job: Job, files: dict[str, Path]) -> dict[str, tuple[Artifact, ...]]:
    models = {}
    for model in job.models:
        named = [(f"model-{model.recipe}/{name}", path, sha256) for name, path, sha256 in model.files]
        models[model.recipe] = tuple(Artifact(name=name, sha256=sha256) for name, _, sha256 in named)
        files |= {name: path for name, path, _ in named}
    return models


def _space(job: Job, facts: TargetFacts, release: Release, files: Mapping[str, Path]) -> SpaceNeeded:
    models = [(Path(p.name).name, files[p.name].stat().st_size) for m in release.models.values() for p in m]
    if release.build:
        size = files[release.build.name].stat().st_size
        return SpaceNeeded(build_bytes=size, build_id=release.build_id, models=models)
    compile_bytes = job.compile_bytes.get(job.request.backend or facts.backend, 0)
    return SpaceNeeded(compile_bytes=compile_bytes, models=models)
