"""Going back to an earlier release: switch, see that it is good, or return to where one was. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.deploy.steps.facts import Site, TargetFacts
from nemotron_ops.deploy.steps.release import RemoteStep
from nemotron_ops.deploy.steps.scripts import link, log, log_if_possible, q


@dataclass(frozen=True, kw_only=True)
class RollbackPlan:
    """The steps of a rollback. If `switch` or `verify` fails, `forward` makes the release of now serve again."""

    release: str
    switch: RemoteStep
    verify: RemoteStep
    settle: RemoteStep
    forward: RemoteStep


def rollback_target(facts: TargetFacts) -> str:
    """The release to go back to: the newest that is good and neither bad nor current; "" if there is none."""
    fit = [r for r in facts.good if r != facts.current and r not in facts.bad]
    if facts.previous in fit:
        return facts.previous
    return fit[-1] if fit else ""


def rollback_plan(site: Site, *, current: str, to: str, who: str, now: str, why: str = "") -> RollbackPlan:
    """From release `current` ("" if none serves) to release `to`."""
    root, there = q(site.root), f"releases/{q(to)}"
    noted = log(site, who=who, now=now, event="rollback", release=to, why=why)
    switch = f"cd {root}\n[ -x {there}/activate.sh ]\n{noted}\nexec {there}/activate.sh\n"
    settle = f"cd {root}\nrm -f LOCK.json\n: > {there}/GOOD; rm -f {there}/BAD\n"
    failed = log_if_possible(site, who=who, now=now, event="failed", release=to)
    forward = f"cd {root}\nrm -f LOCK.json\n: > {there}/BAD || true; rm -f {there}/GOOD\n{failed}\n"
    if current and current != to:
        old = f"releases/{q(current)}"
        settle += f"if [ -d {old} ]; then : > {old}/BAD; rm -f {old}/GOOD; {link('previous', old)}; fi\n"
        forward += f"exec {old}/activate.sh\n"
    else:
        forward += "echo 'no other release has served'; exit 1\n"
    return RollbackPlan(
        release=to,
        switch=RemoteStep(name="rollback", about=f"switch `current` back to {to}, hand over", script=switch),
        verify=verify_step(site, to),
        settle=RemoteStep(name="settle", about="mark it good, and the one before bad", script=settle),
        forward=RemoteStep(name="forward", about="the release before serves again", script=forward),
    )


def verify_step(site: Site, release: str) -> RemoteStep:
    """A release looks after itself: what it must serve is written down in it."""
    script = f"exec {q(site.release(release) / 'verify.sh')}\n"
    about = "all at rest and as asked for, a question at the door, no restart"
    return RemoteStep(name="verify", about=about, script=script)
