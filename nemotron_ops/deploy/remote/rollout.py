"""Carries out deploys and rollbacks: lock, steps; one host first, then the rest. SSH.

What happens is decided in `plan` and `rollback`; here it is done, and a failure is answered: before the switch the new
release is withdrawn, from then on what served before is put back. A lost connection or Ctrl-C leaves things as they
are: whatever serves goes on serving, and the next deploy continues. Either way the target is back in its balancer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from nemotron_ops.deploy.remote.fleet import Outcome, Turn, first_then_rest
from nemotron_ops.deploy.remote.prepare import Hooks, Job, Ready, as_needed, look
from nemotron_ops.deploy.remote.session import Session, locked_session, refuse_hold
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.release import DeployPlan, RemoteStep
from nemotron_ops.deploy.steps.rollback import rollback_plan, rollback_target
from nemotron_ops.deploy.steps.scripts import claim_script
from nemotron_ops.errors import DeployError, FitError, NemotronOpsError
from nemotron_ops.progress import Report, Step
from nemotron_ops.service.spec import Scope

TAIL = 40


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A rollback of some targets: to which release ("" for the previous good one), and who wants it."""

    scope: Scope
    who: str
    now: str
    to: str = ""
    why: str = ""
    force: bool = False
    hooks: Hooks


def roll_out(
    readies: Sequence[Ready], job: Job, *, parallel: int, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """First one target; only if that went well, the others, `parallel` at a time. Stops at the first failure."""
    turns = [Turn(connection=r.connection, release=r.plan.release, act=partial(carry_out, r, job)) for r in readies]
    return first_then_rest(turns, parallel=parallel, report=report)


def carry_out(ready: Ready, job: Job, report: Report) -> Outcome:
    """Run a plan on its target. Raises DeployError, after withdrawing or going back, if a step fails."""
    target, plan = ready.connection.target, ready.plan
    if ready.serving and not job.force:
        return Outcome(target=target, release=plan.release, result="already there")
    with locked_session(ready.connection, ready.site, force=job.force) as session, ExitStack() as door:
        with _withdrawn_if_it_fails(session, plan):
            _prepare(ready, session, report)
            door.enter_context(out_of_traffic(job.hooks, target, report))
        _switch(ready, session, report)
        code, lines = _run(session, plan.finish, report)
        if code:
            raise _failed("deploy to", target, plan.finish, code, lines, "the new release serves")
    return Outcome(target=target, release=plan.release, result="deployed")


def roll_back_all(
    connections: Sequence[Connection], wish: Wish, *, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """One target after another; stops at the first failure."""
    turns = [Turn(connection=c, release=wish.to, act=partial(roll_back, c, wish)) for c in connections]
    return first_then_rest(turns, parallel=1, report=report)


def roll_back(connection: Connection, wish: Wish, report: Report) -> Outcome:
    """Make an earlier release of a target serve again. Raises DeployError if there is none, or if it is no good."""
    facts, site = look(connection, wish.scope)
    connection, target = as_needed(connection, wish.scope, facts), connection.target
    if not wish.force:
        refuse_hold(target, facts.hold, "roll back")
    to = wish.to or rollback_target(facts)
    if not to or to not in facts.releases:
        raise DeployError(
            f"cannot roll back {target}: " + (f"there is no release {to}" if to else "no earlier good release"),
            hint=f"good releases there: {', '.join(facts.good) or 'none'}",
        )
    plan = rollback_plan(site, current=facts.current, to=to, who=wish.who, now=wish.now, why=wish.why)
    report(Step(what="rollback", note=f"{target}: {facts.current or 'nothing'} -> {to}"))
    with locked_session(connection, site, force=wish.force, verb="roll back") as session:
        reason = f"rollback to {to}" + (f": {wish.why}" if wish.why else "")
        session.run(claim_script(site, who=wish.who, now=wish.now, why=reason))
        with out_of_traffic(wish.hooks, target, report):
            for step in (plan.switch, plan.verify, plan.settle):
                code, lines = _run(session, step, report)
                if code:
                    report(Step(what="forward", note=f"{target}: {step.name} failed, going forward again"))
                    again, said = session.run(plan.forward.script)
                    so = f"{facts.current} serves again"
                    so = f"going forward again failed too: {' '.join(said[-3:])}" if again else so
                    raise _failed("roll back", target, step, code, lines, so)
    return Outcome(target=target, release=to, result="rolled back")


@contextmanager
def out_of_traffic(hooks: Hooks, target: str, report: Report) -> Iterator[None]:
    """The target gets no requests from a balancer within; afterwards it does, whatever has happened.

    Its balancer sees for itself whether it answers, so nobody is sent to one that does not.
    """
    with hooks.turn:
        try:
            hooks.before_switch(target, report)
            yield
        except BaseException:
            try:
                hooks.after_switch(target)
            except NemotronOpsError as exc:  # what went wrong first is what is told
                report(Step(what="balancer", note=f"{target}: {exc.message}"))
            raise
        hooks.after_switch(target)


@contextmanager
def _withdrawn_if_it_fails(session: Session, plan: DeployPlan) -> Iterator[None]:
    try:
        yield
    except NemotronOpsError:
        with suppress(NemotronOpsError):  # it may be the connection that has failed
            session.run(plan.withdraw.script)
        raise


def _prepare(ready: Ready, session: Session, report: Report) -> None:
    """Everything up to the switch."""
    target = ready.connection.target
    for step in ready.plan.before:
        if step.done_if and session.run(step.done_if)[0] == 0:
            continue
        for parcel in step.send:
            to = ready.site.incoming / parcel.name
            ready.connection.send_file(ready.parcels[parcel.name], to, sha256=parcel.sha256, report=report)
        code, lines = _run(session, step, report)
        if code == FitError.exit_code and step.name == "try":
            report(Step(what="try", note=f"{target}: no room for old and new side by side; switching in place"))
        elif code:
            raise _failed("deploy to", target, step, code, lines, "the old release was not touched")


def _switch(ready: Ready, session: Session, report: Report) -> None:
    """Activate and verify; if that fails, what served before serves again."""
    target, plan = ready.connection.target, ready.plan
    for step in plan.activate:
        code, lines = _run(session, step, report)
        if code:
            report(Step(what="back", note=f"{target}: {step.name} failed, going back"))
            back, said = session.run(plan.back.script)
            so = "the previous release serves again" if ready.facts.current else "it is as it was before"
            so = f"going back failed too: {' '.join(said[-3:])}" if back else so
            raise _failed("deploy to", target, step, code, lines, so)


def _run(session: Session, step: RemoteStep, report: Report) -> tuple[int, tuple[str, ...]]:
    report(Step(what=step.name, note=f"{session.target}: {step.name}: {step.about}"))
    return session.run(
        step.script, on_line=lambda line: report(Step(what=step.name, note=f"{session.target}:   {line}"))
    )


def _failed(verb: str, target: str, step: RemoteStep, code: int, lines: tuple[str, ...], so: str) -> DeployError:
    return DeployError(
        f"cannot {verb} {target}: step {step.name} ({step.about}) failed with exit code {code}; {so}",
        log_tail=lines[-TAIL:], hint=f"nemotron-ops deploy logs {target}",
    )  # fmt: skip
