"""The steps of a deploy from the switch on: activate, and what ends it well or badly. Pure."""

from __future__ import annotations

from nemotron_ops.deploy.steps.before_switch import Steps
from nemotron_ops.deploy.steps.candidate import UNIT as CANDIDATE
from nemotron_ops.deploy.steps.release import RemoteStep
from nemotron_ops.deploy.steps.scripts import link, q

FULL_KIB = 50 << 10  # less than this free is a full disk


def activate(s: Steps) -> RemoteStep:
    script = f"""\
cd {q(s.site.root)}
{s.before.keep()}{s.note("activate")}
old=$(readlink current || true)
if [ -n "$old" ] && [ "$old" != {q(f"releases/{s.name}")} ]; then {link("previous", '"$old"')}; fi
rm -f {q(s.dir / "BAD")}
exec {q(s.dir / "activate.sh")}
"""
    return RemoteStep(name="activate", about="switch `current`, hand over to the new release", script=script)


def finish(s: Steps) -> RemoteStep:
    root = q(s.site.root)
    script = f"""\
cd {root}
rm -rf incoming before LOCK.json
: > releases/{s.name}/GOOD; rm -f releases/{s.name}/BAD
{s.note("good")}
keep=" $(basename "$(readlink current)") $(basename "$(readlink previous || echo -)") "
for r in $(ls -t releases | tail -n +{s.request.keep + 1}); do
  case "$keep" in *" $r "*) ;; *) rm -rf "releases/$r" ;; esac
done
used=" $(for r in releases/*; do basename "$(readlink "$r/venv" || echo -)"; done | tr '\\n' ' ') "
for p in programs/*; do
  case "$used" in *" $(basename "$p") "*) ;; *) rm -rf "$p" ;; esac
done
"""
    return RemoteStep(name="finish", about=f"mark it good, keep {s.request.keep} releases", script=script)


def withdraw(s: Steps) -> RemoteStep:
    """After a failure before the switch: the old release was never touched.

    What the failed step left half made goes first. Maybe the disk is full: then so does what was sent.
    """
    program = q(s.python_env)
    script = f"""\
cd {q(s.site.root)}
{s.systemctl} stop {CANDIDATE}.service 2>/dev/null || true
rm -rf {q(s.site.data / "builds/.sent")} {q(s.candidate.home)}
[ -f {program}/COMPLETE ] || rm -rf {program}
[ -f releases/{s.name}/RELEASE.json ] || rm -rf releases/{s.name}
[ "$(df -Pk . | tail -n1 | awk '{{print $4}}')" -gt {FULL_KIB} ] || rm -rf incoming
rm -f LOCK.json
if [ -d releases/{s.name} ] && [ "$(readlink current || true)" != releases/{s.name} ]; then
  : > releases/{s.name}/BAD || true
fi
{s.failed}
"""
    return RemoteStep(name="withdraw", about="mark it bad; the old release serves on", script=script)


def back(s: Steps) -> RemoteStep:
    """After a failure from the switch on: the previous release serves again; without one, what was there before."""
    put_back = s.before.put_back(release=s.dir, program=s.program, ready_s=s.request.ready_s)
    script = f"""\
cd {q(s.site.root)}
rm -rf incoming LOCK.json
: > releases/{s.name}/BAD || true; rm -f releases/{s.name}/GOOD
{s.failed}
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/{s.name} ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
{put_back}"""
    return RemoteStep(name="back", about="what served before serves again", script=script)
