"""Small scripts for a target: locks, links, the audit log, going back, running a command. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from nemotron_ops.deploy.target import Site
from nemotron_ops.service.units import Scope


def prelude(scope: Scope) -> str:
    """Said before every step: where a user's service manager is found."""
    if scope is Scope.SYSTEM:
        return "export NEMOTRON_OPS_SYSTEM=1\n"
    return 'export XDG_RUNTIME_DIR="/run/user/$(id -u)" NO_COLOR=1\n'


def rollback_script(site: Site, *, to: str, who: str, now: str) -> str:
    """Make release `to` the serving one again; remember the present one as bad and as previous."""
    root = q(site.root)
    return f"""\
cd {root}
old=$(basename "$(readlink current)")
[ -x releases/{q(to)}/activate.sh ]
{log(site, who=who, now=now, event="rollback", release=to)}
: > "releases/$old/BAD"; rm -f "releases/$old/GOOD"
{link("previous", '"releases/$old"')}
rm -f LOCK.json
exec releases/{q(to)}/activate.sh
"""


def hold_script(site: Site, *, hold: Mapping[str, str] | None) -> str:
    """Put down (or, with None, take away) the lock that a person holds."""
    path = q(site.root / "HOLD.json")
    if hold is None:
        return f"rm -f {path}\n"
    return f"mkdir -p {q(site.root)}\nprintf '%s\\n' {q(json.dumps(dict(hold)))} > {path}\n"


def exec_script(site: Site, words: tuple[str, ...]) -> str:
    """Run a nemotron-ops command with the current release's program."""
    return f"exec {q(site.program)} {shlex.join(words)}\n"


def q(value: str | PurePosixPath) -> str:
    return shlex.quote(str(value))


def break_script(site: Site) -> str:
    """End the session that holds the deploy lock, if it is still the one that LOCK.json names."""
    lock = q(site.root / "LOCK.json")
    return f"""\
[ -f {lock} ] || {{ echo "nobody holds the lock"; exit 0; }}
sid=$(sed -n 's/.*"sid": \\([0-9]*\\).*/\\1/p' {lock}); start=$(sed -n 's/.*"start": \\([0-9]*\\).*/\\1/p' {lock})
if [ "$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)" = "$start" ]; then
  kill -TERM "-$sid" && echo "ended session $sid"
else
  echo "its session is gone already"
fi
rm -f {lock}
"""


def claim_script(site: Site, *, who: str, now: str, why: str) -> str:
    """LOCK.json: who, since, why; and the session (with its start time) so that a stale one can be ended."""
    text = json.dumps({"who": who, "since": now, "why": why})[:-1]
    return f"""\
sid=$(ps -o sid= -p $$ | tr -d ' '); start=$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)
printf '%s, "sid": %s, "start": %s}}\\n' {q(text)} "$sid" "${{start:-0}}" > {q(site.root / "LOCK.json")}
"""


def link(name: str, to: str) -> str:
    """Point the link `name` (in the working directory) to `to` by rename: `ln -sfn` would be two steps."""
    return f"rm -f .{name}.new; ln -s {to} .{name}.new; mv -T .{name}.new {name}"


def log(site: Site, *, who: str, now: str, **fields: str) -> str:
    line = json.dumps({"time": now, "who": who, **fields})
    return f"printf '%s\\n' {q(line)} >> {q(site.root / 'deploy.log')}"
