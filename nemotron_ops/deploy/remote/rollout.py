"""Runs deploys and rollbacks: lock, steps, what follows from a failure; one target first, then the rest. SSH.

`plan` and `rollback` decide the steps; this module runs them. After a failure before the switch the new release is
withdrawn, from then on the previous release is activated. A lost connection or Ctrl-C changes nothing: the release
that serves still serves, and the next deploy continues. In every case the target returns to its balancer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from nemotron_ops.deploy.remote.fleet import Outcome, TargetTask, first_then_rest
from nemotron_ops.deploy.remote.prepare import Hooks, Job, PreparedTarget, look, with_sudo_if_needed
from nemotron_ops.deploy.remote.session import Session, check_hold, locked_session
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.release import DeployPlan, RemoteStep
from nemotron_ops.deploy.steps.rollback import RollbackPlan, rollback_plan, rollback_target
from nemotron_ops.deploy.steps.scripts import claim_script
from nemotron_ops.errors import DeployError, FitError, NemotronOpsError
from nemotron_ops.progress import Report, Step
from nemotron_ops.service.spec import Scope

TAIL = 40


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A rollback of some targets; `to` is a release, "" for the previous good one."""

    scope: Scope
    who: str
    now: str
    to: str = ""
    why: str = ""
    force: bool = False
    hooks: Hooks


def roll_out(
    prepared: Sequence[PreparedTarget], job: Job, *, parallel: int, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """Deploy to the first target; if that succeeds, to the others, `parallel` at a time. Stops at the first failure."""
    tasks = [
        TargetTask(connection=p.connection, release=p.plan.release, act=partial(carry_out, p, job)) for p in prepared
    ]
    return first_then_rest(tasks, parallel=parallel, report=report)


def carry_out(prepared: PreparedTarget, job: Job, report: Report) -> Outcome:
    """Run a plan on its target. Raises DeployError if a step fails, after the release was withdrawn or rolled back."""
    target, plan = prepared.connection.target, prepared.plan
    if prepared.serving and not job.force:
        return Outcome(target=target, release=plan.release, result="already there")
    with locked_session(prepared.connection, prepared.site, force=job.force) as session, ExitStack() as stack:
        with _withdrawn_if_it_fails(session, plan):
            _before_switch(prepared, session, report)
            stack.enter_context(out_of_traffic(job.hooks, target, report))
        _switch(prepared, session, report)
        code, lines = _run(session, plan.finish, report)
        if code:
            raise _failed("deploy to", target, plan.finish, code, lines, "the new release serves")
    return Outcome(target=target, release=plan.release, result="deployed")


def roll_back_all(
    connections: Sequence[Connection], rollback: Rollback, *, report: Report
) -> tuple[tuple[Outcome, ...], tuple[NemotronOpsError, ...]]:
    """One target after another; stops at the first failure."""
    tasks = [TargetTask(connection=c, release=rollback.to, act=partial(roll_back, c, rollback)) for c in connections]
    return first_then_rest(tasks, parallel=1, report=report)


def roll_back(connection: Connection, rollback: Rollback, report: Report) -> Outcome:
    """Make an earlier release of a target serve again. Raises DeployError if there is none, or if it fails."""
    facts, site = look(connection, rollback.scope)
    connection, target = with_sudo_if_needed(connection, rollback.scope, facts), connection.target
    if not rollback.force:
        check_hold(target, facts.hold, "roll back")
    to = rollback.to or rollback_target(facts)
    if not to or to not in facts.releases:
        raise DeployError(
            f"cannot roll back {target}: " + (f"there is no release {to}" if to else "no earlier good release"),
            hint=f"good releases there: {', '.join(facts.good) or 'none'}",
        )
    plan = rollback_plan(site, current=facts.current, to=to, who=rollback.who, now=rollback.now, why=rollback.why)
    report(Step(what="rollback", note=f"{target}: {facts.current or 'nothing'} -> {to}"))
    with locked_session(connection, site, force=rollback.force, verb="roll back") as session:
        reason = f"rollback to {to}" + (f": {rollback.why}" if rollback.why else "")
        session.run(claim_script(site, who=rollback.who, now=rollback.now, why=reason))
        with out_of_traffic(rollback.hooks, target, report):
            _switch_back(session, plan, facts.current, report)
    return Outcome(target=target, release=to, result="rolled back")


@contextmanager
def out_of_traffic(hooks: Hooks, target: str, report: Report) -> Iterator[None]:
    """The balancer sends no requests to the target inside this block; afterwards it does, also after a failure.

    The balancer's own checks keep requests away from a target that does not answer.
    """
    with hooks.lock:
        try:
            hooks.before_switch(target, report)
            yield
        except BaseException:
            try:
                hooks.after_switch(target)
            except NemotronOpsError as exc:  # the first failure is the one that is raised
                report(Step(what="balancer", note=f"{target}: {exc.message}"))
            raise
        hooks.after_switch(target)


@contextmanager
def _withdrawn_if_it_fails(session: Session, plan: DeployPlan) -> Iterator[None]:
    try:
        yield
    except NemotronOpsError:
        with suppress(NemotronOpsError):  # the connection itself may have failed
            session.run(plan.withdraw.script)
        raise


def _before_switch(prepared: PreparedTarget, session: Session, report: Report) -> None:
    """Everything up to the switch."""
    target = prepared.connection.target
    for step in prepared.plan.before_switch:
        if step.done_if and session.run(step.done_if)[0] == 0:
            continue
        for artifact in step.send:
            to = prepared.site.incoming / artifact.name
            prepared.connection.send_file(prepared.files[artifact.name], to, sha256=artifact.sha256, report=report)
        code, lines = _run(session, step, report)
        if code == FitError.exit_code and step.name == "try":
            report(Step(what="try", note=f"{target}: no memory for old and new side by side; switching in place"))
        elif code:
            raise _failed("deploy to", target, step, code, lines, "the old release was not touched")


def _switch(prepared: PreparedTarget, session: Session, report: Report) -> None:
    """Activate and verify; if that fails, the previous state serves again."""
    target, plan = prepared.connection.target, prepared.plan
    for step in plan.switch:
        code, lines = _run(session, step, report)
        if code:
            report(Step(what="back", note=f"{target}: {step.name} failed, going back"))
            exit_code, output = session.run(plan.back.script)
            outcome = "the previous release serves again" if prepared.facts.current else "it is as it was before"
            if exit_code:
                outcome = f"going back failed too: {' '.join(output[-3:])}"
            raise _failed("deploy to", target, step, code, lines, outcome)


def _switch_back(session: Session, plan: RollbackPlan, current: str, report: Report) -> None:
    """The steps of a rollback; if one fails, the release `current` serves again."""
    target = session.target
    for step in (plan.switch, plan.verify, plan.settle):
        code, lines = _run(session, step, report)
        if code:
            report(Step(what="forward", note=f"{target}: {step.name} failed, returning to {current or 'nothing'}"))
            exit_code, output = session.run(plan.forward.script)
            outcome = f"returning failed too: {' '.join(output[-3:])}" if exit_code else f"{current} serves again"
            raise _failed("roll back", target, step, code, lines, outcome)


def _run(session: Session, step: RemoteStep, report: Report) -> tuple[int, tuple[str, ...]]:
    report(Step(what=step.name, note=f"{session.target}: {step.name}: {step.about}"))
    return session.run(
        step.script, on_line=lambda line: report(Step(what=step.name, note=f"{session.target}:   {line}"))
    )


def _failed(verb: str, target: str, step: RemoteStep, code: int, lines: tuple[str, ...], outcome: str) -> DeployError:
    return DeployError(
        f"cannot {verb} {target}: step {step.name} ({step.about}) failed with exit code {code}; {outcome}",
        log_tail=lines[-TAIL:],
        hint=f"nemotron-ops deploy logs {target}",
    )
