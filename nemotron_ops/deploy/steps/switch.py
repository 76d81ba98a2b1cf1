"""The steps of a deploy from the switch on: activate, finish, and what a failure calls for. Pure."""

from __future__ import annotations

from nemotron_ops.deploy.steps.candidate import UNIT as CANDIDATE
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.release import RemoteStep
from nemotron_ops.deploy.steps.scripts import link, q

FULL_KIB = 50 << 10  # a disk with less than this free counts as full


def activate(ctx: Context) -> RemoteStep:
    script = f"""\
cd {q(ctx.site.root)}
{ctx.saved_state.save()}{ctx.audit("activate")}
old=$(readlink current || true)
if [ -n "$old" ] && [ "$old" != {q(f"releases/{ctx.name}")} ]; then {link("previous", '"$old"')}; fi
rm -f {q(ctx.release_dir / "BAD")}
exec {q(ctx.release_dir / "activate.sh")}
"""
    return RemoteStep(name="activate", about="switch `current`, hand over to the new release", script=script)


def finish(ctx: Context) -> RemoteStep:
    """Marks the release good; removes old releases, and programs that no release uses."""
    root = q(ctx.site.root)
    script = f"""\
cd {root}
rm -rf incoming before LOCK.json
: > releases/{ctx.name}/GOOD; rm -f releases/{ctx.name}/BAD
{ctx.audit("good")}
keep=" $(basename "$(readlink current)") $(basename "$(readlink previous || echo -)") "
for r in $(ls -t releases | tail -n +{ctx.request.keep + 1}); do
  case "$keep" in *" $r "*) ;; *) rm -rf "releases/$r" ;; esac
done
used=" $(for r in releases/*; do basename "$(readlink "$r/venv" || echo -)"; done | tr '\\n' ' ') "
for p in programs/*; do
  case "$used" in *" $(basename "$p") "*) ;; *) rm -rf "$p" ;; esac
done
"""
    return RemoteStep(name="finish", about=f"mark it good, keep {ctx.request.keep} releases", script=script)


def withdraw(ctx: Context) -> RemoteStep:
    """After a failure before the switch: removes what is unfinished, marks the release bad. The old one still serves.

    On a full disk the files that were sent go as well.
    """
    program = q(ctx.python_env)
    script = f"""\
cd {q(ctx.site.root)}
{ctx.systemctl} stop {CANDIDATE}.service 2>/dev/null || true
rm -rf {q(ctx.site.data / "builds/.sent")} {q(ctx.candidate.home)}
[ -f {program}/COMPLETE ] || rm -rf {program}
[ -f releases/{ctx.name}/RELEASE.json ] || rm -rf releases/{ctx.name}
[ "$(df -Pk . | tail -n1 | awk '{{print $4}}')" -gt {FULL_KIB} ] || rm -rf incoming
rm -f LOCK.json
if [ -d releases/{ctx.name} ] && [ "$(readlink current || true)" != releases/{ctx.name} ]; then
  : > releases/{ctx.name}/BAD || true
fi
{ctx.audit_failure}
"""
    return RemoteStep(name="withdraw", about="mark it bad; the old release still serves", script=script)


def go_back(ctx: Context) -> RemoteStep:
    """After a failure from the switch on: activates the previous release; without one, restores the saved state."""
    restore = ctx.saved_state.restore(release=ctx.release_dir, program=ctx.program, ready_s=ctx.request.ready_s)
    script = f"""\
cd {q(ctx.site.root)}
rm -rf incoming LOCK.json
: > releases/{ctx.name}/BAD || true; rm -f releases/{ctx.name}/GOOD
{ctx.audit_failure}
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/{ctx.name} ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
{restore}"""
    return RemoteStep(name="back", about="the previous release serves again", script=script)
