"""Carries out deploys: facts, plan, lock, steps; one host first, then the rest. SSH, pip, disk.

What happens is decided in `plan`; here it is done, and a failure is answered: before the switch the new release is
withdrawn, from then on the old one is put back. A lost connection or Ctrl-C leaves things as they are: whatever serves
goes on serving, and the next deploy continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemotron_ops.deploy.bundle import Platform, make_bundle, pack_folder
from nemotron_ops.deploy.plan import deploy_plan, rollback_target
from nemotron_ops.deploy.release import DOES_NOT_FIT, DeployPlan, Parcel, Release, RemoteStep, Request
from nemotron_ops.deploy.scripts import claim_script, prelude, rollback_script
from nemotron_ops.deploy.ssh import Connection, Locked, Session, sha256_of
from nemotron_ops.deploy.target import (
    Site,
    TargetFacts,
    build_fits,
    check_target,
    facts_script,
    parse_facts,
    site_for,
)
from nemotron_ops.errors import DeployError, NemotronOpsError
from nemotron_ops.progress import Report, Step
from nemotron_ops.service.units import Scope

RELEASE_BYTES = 400 << 20  # a release unpacked, with the bundle beside it
TAIL = 40


@dataclass(frozen=True, kw_only=True)
class LocalBuild:
    """A llama.cpp build of this machine that may be sent instead of building there."""

    id: str
    path: Path
    backend: str
    machine: str
    glibc: tuple[int, int]
    cpu_features: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model of this machine that is to be sent: what its files are called over there, where they are, sha256."""

    recipe: str
    files: tuple[tuple[str, Path, str], ...]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What else happens around the switch of one target: taken out of a balancer before, put back after."""

    before_switch: Callable[[str], None] = lambda target: None
    after_switch: Callable[[str], None] = lambda target: None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One deploy to some targets."""

    request: Request
    cache: Path
    who: str
    now: str
    why: str = ""
    build: LocalBuild | None = None
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it went on one target."""

    target: str
    release: str
    result: str  # "deployed", "already there", "failed", "not tried"
    reason: str = ""


def look(connection: Connection, scope: Scope) -> tuple[TargetFacts, Site]:
    """The facts of a target (read only) and where its releases live."""
    done = connection.sh(facts_script(scope))
    facts = parse_facts(done.stdout)
    return facts, site_for(scope, home=facts.home)


def make_ready(connection: Connection, job: Job, *, report: Report) -> Ready:
    """Look at a target and plan for it; nothing over there is changed. Raises DeployError if it cannot be done."""
    request = job.request
    facts, site = look(connection, request.scope)
    target = connection.target
    check_target(target, facts, request.scope, need_bytes=RELEASE_BYTES)
    if facts.hold and not job.force:
        raise DeployError(
            f"cannot deploy to {target}: it is locked: {held(facts.hold)}",
            hint=f"nemotron-ops deploy unlock {target}",
        )
    if request.scope is Scope.SYSTEM and facts.uid != 0:
        connection = replace(connection, sudo=True)
    platform = Platform(python=facts.python_version, machine=facts.machine, glibc=facts.glibc)
    bundle = make_bundle(platform, cache=job.cache, report=report)
    parcels = {bundle.path.name: bundle.path}
    build, notes = None, []
    if job.build:
        own = job.build
        why_not = build_fits(machine=own.machine, glibc=own.glibc, cpu_features=own.cpu_features, facts=facts)
        if why_not:
            notes.append(f"{target}: llama.cpp will be built there, the build here cannot be used: {why_not}")
        else:
            path = job.cache / f"build-{own.id}.tar"
            build = Parcel(name=path.name, sha256=pack_folder(own.path, path, prefix=own.id))
            parcels[path.name] = path
    keys = None
    if job.keys:
        sha256 = sha256_of(job.keys)
        keys = Parcel(name=f"keys-{sha256[:16]}.json", sha256=sha256)
        parcels[keys.name] = job.keys
    models: dict[str, tuple[Parcel, ...]] = {}
    for model in job.models:
        named = [(f"model-{model.recipe}/{name}", path, sha256) for name, path, sha256 in model.files]
        models[model.recipe] = tuple(Parcel(name=name, sha256=sha256) for name, _, sha256 in named)
        parcels |= {name: path for name, path, _ in named}
    release = Release(
        version=bundle.version,
        bundle=Parcel(name=bundle.path.name, sha256=bundle.sha256),
        build_id=job.build.id if job.build and build else "",
        build=build,
        keys=keys,
        models=models,
    )
    plan = deploy_plan(request, release, facts, site, who=job.who, now=job.now)
    return Ready(connection=connection, facts=facts, site=site, plan=plan, parcels=parcels, notes=tuple(notes))


def carry_out(ready: Ready, job: Job, *, report: Report) -> Outcome:
    """Run a plan on its target. Raises DeployError, after withdrawing or going back, if a step fails."""
    target, plan = ready.connection.target, ready.plan
    if ready.serving and not job.force:
        return Outcome(target=target, release=plan.release, result="already there")
    with locked_session(ready.connection, ready.site) as session:
        for step in plan.before:
            if step.done_if and session.run(step.done_if)[0] == 0:
                continue
            _send(ready, step, report)
            code, lines = _run(session, step, report)
            if code == DOES_NOT_FIT and step.name == "try":
                report(Step(what="try", note=f"{target}: no room for old and new side by side; switching in place"))
            elif code:
                session.run(plan.withdraw.script)
                raise _failed(target, step, code, lines, "the old release was not touched")
        job.hooks.before_switch(target)
        for step in plan.activate:
            code, lines = _run(session, step, report)
            if code:
                report(Step(what="back", note=f"{target}: {step.name} failed, going back"))
                back, said = session.run(plan.back.script)
                job.hooks.after_switch(target)
                how = "the previous release serves again" if ready.facts.current else "nothing was there before"
                how = f"going back failed too: {' '.join(said[-3:])}" if back else how
                raise _failed(target, step, code, lines, how)
        job.hooks.after_switch(target)
        _run(session, plan.finish, report)
    return Outcome(target=target, release=plan.release, result="deployed")


def roll_out(
    readies: Sequence[Ready], job: Job, *, parallel: int, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """First one target; only if that went well, the others, `parallel` at a time. Stops at the first failure."""
    outcomes: list[Outcome] = []
    errors: list[NemotronOpsError] = []

    def one(ready: Ready) -> Outcome:
        target = ready.connection.target
        if errors:
            return Outcome(target=target, release=ready.plan.release, result="not tried")
        try:
            return carry_out(ready, job, report=report)
        except NemotronOpsError as exc:
            errors.append(exc)
            return Outcome(target=target, release=ready.plan.release, result="failed", reason=exc.message)

    if readies:
        outcomes.append(one(readies[0]))
    with ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        outcomes += list(pool.map(one, readies[1:]))
    return tuple(outcomes), tuple(errors)


def roll_back(connection: Connection, scope: Scope, *, to: str, who: str, now: str, report: Report) -> str:
    """Make an earlier release of a target serve again; returns which. Raises DeployError if there is none."""
    facts, site = look(connection, scope)
    connection = as_needed(connection, scope, facts)
    chosen = to or rollback_target(facts)
    if not chosen or chosen not in facts.releases:
        known = ", ".join(facts.good) or "none"
        raise DeployError(
            f"cannot roll back {connection.target}: "
            + (f"there is no release {to}" if to else "no earlier good release"),
            hint=f"good releases there: {known}",
        )
    report(Step(what="rollback", note=f"{connection.target}: {facts.current or 'nothing'} -> {chosen}"))
    with locked_session(connection, site) as session:
        session.run(claim_script(site, who=who, now=now, why=f"rollback to {chosen}"))
        code, lines = session.run(
            rollback_script(site, to=chosen, who=who, now=now), on_line=lambda line: report(Step(what="", note=line))
        )
        if code:
            raise DeployError(f"cannot roll back {connection.target}: exit code {code}", log_tail=lines[-TAIL:])
    return chosen


def as_needed(connection: Connection, scope: Scope, facts: TargetFacts) -> Connection:
    """The connection with sudo where the scope takes root and the user is not."""
    return replace(connection, sudo=True) if scope is Scope.SYSTEM and facts.uid != 0 else connection


def locked_session(connection: Connection, site: Site) -> Session:
    """A session that holds the target's deploy lock. Raises Locked, with who holds it."""
    session = Session(connection, site.root / ".lock", prelude=prelude(site.scope))
    try:
        session.run("true")
    except Locked as exc:
        session.close()
        facts, _ = look(connection, site.scope)
        raise Locked(connection.target, held(facts.lock)) from exc
    except BaseException:
        session.close()
        raise
    return session


def held(text: str) -> str:
    """`alice since 2026-01-01T12:00Z: upgrade of the driver`, from the JSON of a lock."""
    try:
        value = json.loads(text)
        return f"{value['who']} since {value['since']}: {value['why'] or 'no reason given'}"
    except (ValueError, KeyError, TypeError):
        return text


def _send(ready: Ready, step: RemoteStep, report: Report) -> None:
    for parcel in step.send:
        to = ready.site.incoming / parcel.name
        ready.connection.send_file(ready.parcels[parcel.name], to, sha256=parcel.sha256, report=report)


def _run(session: Session, step: RemoteStep, report: Report) -> tuple[int, tuple[str, ...]]:
    report(Step(what=step.name, note=f"{session.target}: {step.name}: {step.about}"))
    return session.run(
        step.script, on_line=lambda line: report(Step(what=step.name, note=f"{session.target}:   {line}"))
    )


def _failed(target: str, step: RemoteStep, code: int, lines: tuple[str, ...], so: str) -> DeployError:
    return DeployError(
        f"cannot deploy to {target}: step {step.name} ({step.about}) failed with exit code {code}; {so}",
        log_tail=lines[-TAIL:], hint=f"nemotron-ops deploy logs {target}",
    )  # fmt: skip
