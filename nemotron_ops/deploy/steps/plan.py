"""The plan of a deploy: which steps, in which order. Pure.

    begin ▸ send ▸ unpack ▸ doctor ▸ build ▸ models ▸ try ▸ activate ▸ verify ▸ finish

Every step looks first and acts only where something is missing, so a deploy that was interrupted at any point is
continued by running it again. Up to `try` the old release serves untouched. `activate` runs one script that stays in
the release: switching to a release, forwards or back, means running its `activate.sh`; its `verify.sh` tells whether
it is good.

    ROOT/programs/HASH              a virtual environment with the program and all it needs; unchanged once complete
    ROOT/releases/ID/venv           link to its environment; releases that differ only in what they serve share one
    ROOT/releases/ID/recipes        the user's own recipes that were sent along
    ROOT/releases/ID/activate.sh    makes this release the one that serves
    ROOT/releases/ID/verify.sh      checks that it serves as it should
    ROOT/releases/ID/GOOD, BAD      the outcome
    ROOT/current, previous          links, changed by rename
    ROOT/before                     the saved state: what was there before the first deploy, until that is good
    ROOT/incoming                   files being sent, under names that carry their hash
    ROOT/deploy.log                 the audit log: one JSON object per line
"""

from __future__ import annotations

from nemotron_ops.deploy.steps import before_switch, switch
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.release import DeployPlan
from nemotron_ops.deploy.steps.rollback import verify_step


def deploy_plan(ctx: Context) -> DeployPlan:
    """The plan for one target."""
    steps = [before_switch.begin(ctx), before_switch.unpack(ctx), before_switch.doctor(ctx)]
    steps.append(before_switch.upload_build(ctx) if ctx.release.build else before_switch.build_on_target(ctx))
    steps += [before_switch.send_model(ctx, recipe, files) for recipe, files in ctx.release.models.items()]
    steps.append(before_switch.fetch_models(ctx))
    if ctx.request.candidate:
        steps.append(before_switch.try_candidate(ctx))
    return DeployPlan(
        release=ctx.name,
        before_switch=tuple(steps),
        switch=(switch.activate(ctx), verify_step(ctx.site, ctx.name)),
        finish=switch.finish(ctx),
        withdraw=switch.withdraw(ctx),
        back=switch.go_back(ctx),
    )
