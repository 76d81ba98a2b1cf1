"""The steps of a rollback: switch to an earlier release, verify it, return to the current one if it fails. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.deploy.steps.facts import Site, TargetFacts
from nemotron_ops.deploy.steps.release import RemoteStep
from nemotron_ops.deploy.steps.scripts import append_audit, link, q, try_append_audit


@dataclass(frozen=True, kw_only=True)
class RollbackPlan:
    """The steps of a rollback. If one fails, `forward` makes the current release serve again."""

    release: str
    switch: RemoteStep
    verify: RemoteStep
    settle: RemoteStep
    forward: RemoteStep


def rollback_target(facts: TargetFacts) -> str:
    """The release to go back to: `previous`, or the newest good one that is not current or bad; "" if there is none."""
    candidates = [r for r in facts.good if r != facts.current and r not in facts.bad]
    if facts.previous in candidates:
        return facts.previous
    return candidates[-1] if candidates else ""


def rollback_plan(site: Site, *, current: str, to: str, who: str, now: str, why: str = "") -> RollbackPlan:
    """From release `current` ("" if none serves) to release `to`."""
    root, target = q(site.root), f"releases/{q(to)}"
    audit = append_audit(site, who=who, now=now, event="rollback", release=to, why=why)
    switch = f"cd {root}\n[ -x {target}/activate.sh ]\n{audit}\nexec {target}/activate.sh\n"
    settle = f"cd {root}\nrm -f LOCK.json\n: > {target}/GOOD; rm -f {target}/BAD\n"
    failed = try_append_audit(site, who=who, now=now, event="failed", release=to)
    forward = f"cd {root}\nrm -f LOCK.json\n: > {target}/BAD || true; rm -f {target}/GOOD\n{failed}\n"
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
        settle=RemoteStep(name="settle", about="mark it good, and the earlier current one bad", script=settle),
        forward=RemoteStep(name="forward", about="the earlier current release serves again", script=forward),
    )


def verify_step(site: Site, release: str) -> RemoteStep:
    """Runs the release's own verify.sh."""
    script = f"exec {q(site.release(release) / 'verify.sh')}\n"
    about = "settled and as requested, one question answered, no restart"
    return RemoteStep(name="verify", about=about, script=script)
