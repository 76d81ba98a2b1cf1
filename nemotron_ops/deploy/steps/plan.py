"""The plan of a deploy: which steps, in which order. Pure.

    begin ▸ send ▸ unpack ▸ doctor ▸ build ▸ models ▸ try ▸ activate ▸ verify ▸ finish

Every step looks first and acts only where something is missing, so that a deploy which was cut off at any point is
continued by running it again. Up to `try` the old release serves untouched. `activate` is one script that stays in the
release: switching to a release, forwards or back, is running its `activate.sh`; whether it is good, its `verify.sh`.

    ROOT/programs/HASH              a virtual environment with the program and all it needs; unchanged once complete
    ROOT/releases/ID/venv           link to the one that this release runs; some releases differ only in what they serve
    ROOT/releases/ID/recipes        recipes of the user's own that came along
    ROOT/releases/ID/activate.sh    makes this release the one that serves
    ROOT/releases/ID/verify.sh      whether it serves as it should
    ROOT/releases/ID/GOOD, BAD      how it went
    ROOT/current, previous          links, changed by rename
    ROOT/before                     what was there before the first deploy, until that is good
    ROOT/incoming                   what is being sent, under names that carry its hash
    ROOT/deploy.log                 who did what, and how it ended: one JSON object per line
"""

from __future__ import annotations

from nemotron_ops.deploy.steps import switch
from nemotron_ops.deploy.steps.before_switch import Steps
from nemotron_ops.deploy.steps.facts import Site, TargetFacts
from nemotron_ops.deploy.steps.release import DeployPlan, Release, Request
from nemotron_ops.deploy.steps.rollback import verify_step


def deploy_plan(
    request: Request, release: Release, facts: TargetFacts, site: Site, *, who: str, now: str, why: str = ""
) -> DeployPlan:
    """The plan for one target. `now` is the time for the audit log, `who` the person, `why` their reason."""
    name = release.id(request)
    steps = Steps(request=request, release=release, name=name, facts=facts, site=site, who=who, now=now, why=why)
    before = [steps.begin(), steps.unpack(), steps.doctor()]
    before.append(steps.upload_build() if release.build else steps.build_there())
    before += [steps.send_model(recipe, files) for recipe, files in release.models.items()]
    before.append(steps.models())
    if request.candidate:
        before.append(steps.try_beside())
    return DeployPlan(
        release=name,
        before=tuple(before),
        activate=(switch.activate(steps), verify_step(site, name)),
        finish=switch.finish(steps),
        withdraw=switch.withdraw(steps),
        back=switch.back(steps),
    )
