"""What is to be deployed, and what it comes to on one target: looked at, packed and planned. SSH, pip, disk.

Nothing over there is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.deploy.artifacts.bundle import Platform, make_bundle, pack_folder
from nemotron_ops.deploy.artifacts.fits import Cargo, check_room, why_not_send
from nemotron_ops.deploy.remote.session import refuse_hold
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.facts import Site, TargetFacts, check_target, facts_script, parse_facts, site_for
from nemotron_ops.deploy.steps.plan import deploy_plan
from nemotron_ops.deploy.steps.release import DeployPlan, Parcel, Release, Request
from nemotron_ops.errors import DeployError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import Report
from nemotron_ops.service.units import Scope


@dataclass(frozen=True, kw_only=True)
class LocalBuild:
    """A llama.cpp build of this machine that may be sent instead of building there."""

    id: str
    path: Path
    manifest: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model of this machine that is to be sent: what its files are called over there, where they are, sha256."""

    recipe: str
    files: tuple[tuple[str, Path, str], ...]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What else happens around the switch of one target: taken out of a balancer before, put back after.

    `turn` is held meanwhile: a balancer loses one target at a time.
    """

    before_switch: Callable[[str, Report], None] = lambda target, report: None
    after_switch: Callable[[str], None] = lambda target: None
    turn: AbstractContextManager[Any] = field(default_factory=nullcontext)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One deploy to some targets."""

    request: Request
    cache: Path
    who: str
    now: str
    why: str = ""
    build: LocalBuild | None = None
    must_send: bool = False  # the build; otherwise it is built there where it does not fit
    compile_bytes: Mapping[str, int] = field(default_factory=dict)  # what building takes, for each backend
    keys: Path | None = None  # file of API keys, as `keys create` makes it
    models: tuple[LocalModel, ...] = ()
    force: bool = False
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A target with its facts, its plan, and the files that its steps need."""

    connection: Connection
    facts: TargetFacts
    site: Site
    plan: DeployPlan
    parcels: Mapping[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def serving(self) -> bool:
        """Whether this very release serves there already, and is known to be good."""
        return self.facts.current == self.plan.release and self.plan.release in self.facts.good


def look(connection: Connection, scope: Scope) -> tuple[TargetFacts, Site]:
    """The facts of a target (read only) and where its releases live."""
    done = connection.sh(facts_script(scope))
    facts = parse_facts(done.stdout)
    return facts, site_for(scope, home=facts.home)


def as_needed(connection: Connection, scope: Scope, facts: TargetFacts) -> Connection:
    """The connection with sudo where the scope takes root and the user is not."""
    return replace(connection, sudo=True) if scope is Scope.SYSTEM and facts.uid != 0 else connection


def make_ready(connection: Connection, job: Job, *, report: Report) -> Ready:
    """Look at a target and plan for it; nothing over there is changed. Raises DeployError if it cannot be done."""
    request, target = job.request, connection.target
    facts, site = look(connection, request.scope)
    check_target(target, facts, request.scope)
    if not job.force:
        refuse_hold(target, facts.hold, "deploy to")
    platform = Platform(python=facts.python_version, machine=facts.machine, glibc=facts.glibc)
    bundle = make_bundle(platform, cache=job.cache, report=report)
    parcels = {bundle.path.name: bundle.path}
    build, notes = _build(job, facts, target, parcels)
    release = Release(
        version=bundle.version,
        bundle=Parcel(name=bundle.path.name, sha256=bundle.sha256),
        build_id=job.build.id if job.build and build else "",
        build=build,
        keys=_keys(job, parcels),
        models=_models(job, parcels),
    )
    plan = deploy_plan(request, release, facts, site, who=job.who, now=job.now, why=job.why)
    ready = Ready(
        connection=as_needed(connection, request.scope, facts), facts=facts, site=site, plan=plan, parcels=parcels,
        notes=notes,
    )  # fmt: skip
    if not ready.serving:
        check_room(target, facts, site, _cargo(job, facts, release, parcels))
    return ready


def _build(
    job: Job, facts: TargetFacts, target: str, parcels: dict[str, Path]
) -> tuple[Parcel | None, tuple[str, ...]]:
    """The build as a parcel, where it is the one for the target; else why it is not."""
    if not job.build:
        return None, ()
    why_not = why_not_send(job.build.manifest, facts, asked=job.request.backend)
    if why_not and job.must_send:
        raise DeployError(
            f"cannot send build {job.build.id} to {target}: {why_not}", hint="leave out `--build send` to build there"
        )
    if why_not:
        return None, (f"{target}: llama.cpp will be built there, build {job.build.id} of this machine is not sent: "
                      f"{why_not}",)  # fmt: skip
    path = job.cache / f"build-{job.build.id}.tar"
    parcels[path.name] = path
    return Parcel(name=path.name, sha256=pack_folder(job.build.path, path, prefix=job.build.id)), ()


def _keys(job: Job, parcels: dict[str, Path]) -> Parcel | None:
    if not job.keys:
        return None
    sha256 = sha256_of(job.keys)
    keys = Parcel(name=f"keys-{sha256[:16]}.json", sha256=sha256)
    parcels[keys.name] = job.keys
    return keys


def _models(job: Job, parcels: dict[str, Path]) -> dict[str, tuple[Parcel, ...]]:
    models = {}
    for model in job.models:
        named = [(f"model-{model.recipe}/{name}", path, sha256) for name, path, sha256 in model.files]
        models[model.recipe] = tuple(Parcel(name=name, sha256=sha256) for name, _, sha256 in named)
        parcels |= {name: path for name, path, _ in named}
    return models


def _cargo(job: Job, facts: TargetFacts, release: Release, parcels: Mapping[str, Path]) -> Cargo:
    files = [(Path(p.name).name, parcels[p.name].stat().st_size) for m in release.models.values() for p in m]
    if release.build:
        size = parcels[release.build.name].stat().st_size
        return Cargo(build_bytes=size, build_id=release.build_id, models=files)
    return Cargo(compile_bytes=job.compile_bytes.get(job.request.backend or facts.backend, 0), models=files)
