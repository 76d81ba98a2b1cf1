"""Small scripts for a target: locks, links, the audit log, running a command. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from nemotron_ops.deploy.steps.facts import Site
from nemotron_ops.service.spec import Scope


def prelude(scope: Scope) -> str:
    """Runs before every step: umask, and where the user's service manager is."""
    if scope is Scope.SYSTEM:
        # the service's user must be able to run what root unpacks, even if root's umask is 077
        return "umask 022\nexport NEMOTRON_OPS_SYSTEM=1\n"
    return 'export XDG_RUNTIME_DIR="/run/user/$(id -u)" NO_COLOR=1\n'


def hold_script(site: Site, *, hold: Mapping[str, str] | None, who: str, now: str) -> str:
    """Sets an operator's lock, or with None removes it."""
    path = q(site.root / "HOLD.json")
    if hold is None:
        return f"[ -e {path} ] || exit 0\nrm -f {path}\n{append_audit(site, who=who, now=now, event='unlock')}\n"
    noted = append_audit(site, who=who, now=now, event="lock", why=hold["why"])
    return f"mkdir -p {q(site.root)}\nprintf '%s\\n' {q(json.dumps(dict(hold)))} > {path}\n{noted}\n"


def read_hold(site: Site) -> str:
    """Prints the operator's lock, if there is one."""
    return f"cat {q(site.root / 'HOLD.json')} 2>/dev/null || true\n"


def exec_script(site: Site, words: tuple[str, ...]) -> str:
    """Runs a nemotron-ops command with the current release's program."""
    return f"exec {q(site.program)} {shlex.join(words)}\n"


def q(value: str | PurePosixPath) -> str:
    """`value` quoted as one shell word."""
    return shlex.quote(str(value))


def break_script(site: Site) -> str:
    """Ends the session that holds the deploy lock, if it is still the one that LOCK.json names."""
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
    """Writes LOCK.json: who, since, why, and the session with its start time, by which a stale one is recognised."""
    text = json.dumps({"who": who, "since": now, "why": why})[:-1]
    return f"""\
sid=$(ps -o sid= -p $$ | tr -d ' '); start=$(sed 's/.*) //' "/proc/$sid/stat" 2>/dev/null | cut -d' ' -f20)
printf '%s, "sid": %s, "start": %s}}\\n' {q(text)} "$sid" "${{start:-0}}" > {q(site.root / "LOCK.json")}
"""


def link(name: str, to: str) -> str:
    """Points the link `name` (in the working directory) to `to` by rename; `ln -sfn` would not be atomic."""
    return f"rm -f .{name}.new; ln -s {to} .{name}.new; mv -T .{name}.new {name}"


def append_audit(site: Site, *, who: str, now: str, **fields: str) -> str:
    """Appends a line to the audit log; fields without a value are left out."""
    line = json.dumps({"time": now, "who": who, **{k: v for k, v in fields.items() if v}})
    return f"printf '%s\\n' {q(line)} >> {q(site.root / 'deploy.log')}"


def try_append_audit(site: Site, *, who: str, now: str, **fields: str) -> str:
    """`append_audit` after a failure: a full disk must not stop the repair."""
    return f"{{ {append_audit(site, who=who, now=now, **fields)}; }} 2>/dev/null || echo 'cannot write the audit log'"


def journal(scope: Scope, unit: str, *, lines: int = 30) -> str:
    """The command that prints the end of a unit's journal."""
    return f"journalctl --no-pager --output=cat --lines={lines} --{'user-' if scope is Scope.USER else ''}unit={unit}"
