"""A release before the switch: its own home folder on the target, with its recipes and its build. Pure.

    ROOT/candidate/config    the release's recipes, the target's settings
    ROOT/candidate/data      the target's models and builds; the release's build is the current one

The target's own configuration stays that of the release that serves.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.deploy.steps.facts import Site
from nemotron_ops.deploy.steps.release import Request
from nemotron_ops.deploy.steps.scripts import q
from nemotron_ops.errors import FitError
from nemotron_ops.service.spec import USER, Scope

UNIT = "nemotron-ops-candidate"
FREE_PORT = 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`recipes` is the release's folder of recipes, `config` the target's configuration folder as a shell word."""

    site: Site
    recipes: PurePosixPath
    config: str
    build_id: str = ""

    @property
    def home(self) -> PurePosixPath:
        return self.site.root / "candidate"

    @property
    def words(self) -> str:
        """Words before a command that uses this home; it runs as the service's user, the owner of models."""
        own = f"NEMOTRON_OPS_HOME={q(self.home)} "
        if self.site.scope is Scope.USER:
            return f"env {own}"
        return f"runuser -u {USER} -- env NEMOTRON_OPS_SYSTEM= HOME=/var/lib/nemotron-ops {own}"

    def make_home(self) -> str:
        """Makes the home folder from scratch."""
        home, data = self.home, self.site.data
        own = f"chown -R {USER}:{USER} {q(home)}\n" if self.site.scope is Scope.SYSTEM else ""
        builds = f"ln -s {q(data / 'builds')} {q(home / 'data/builds')}\n"
        if self.build_id:
            # an explicit pointer: the candidate uses the new build while the target's `current` is still the old one
            pointer = json.dumps({"current": self.build_id, "previous": []})
            builds = f"""\
mkdir -p {q(home / "data/builds")}
ln -s {q(data / "builds" / self.build_id)} {q(home / "data/builds" / self.build_id)}
printf '%s' {q(pointer)} > {q(home / "data/builds/current.json")}
"""
        return f"""\
rm -rf {q(home)}; mkdir -p {q(home / "data")} {q(home / "config")}
{builds}ln -s {q(data / "models")} {q(home / "data/models")}
cp -r {q(self.recipes)} {q(home / "config/recipes")}
cp {self.config}/settings.toml {q(home / "config")} 2>/dev/null || true
{own}"""

    def try_script(self, request: Request, *, venv: PurePosixPath, python: str) -> str:
        """Serves from this home on a free port, asks one question, stops; exit code 0 if it was answered."""
        system = self.site.scope is Scope.SYSTEM
        ctl, run, journal = ("systemctl", "systemd-run", "journalctl --no-pager")
        user = f" --property=User={USER}" if system else ""
        if not system:
            ctl, run, journal = (f"{ctl} --user", f"{run} --user", "journalctl --user --no-pager")
        # the request's options come first, so that the address of the trial wins
        serve = ["serve", *request.recipes, *request.serve_options]
        serve += ["--host", "127.0.0.1", "--port", "PORT", "--no-build", "--offline"]
        serve += ["--profile", request.profile] if request.profile else []
        words = shlex.join(serve).replace("PORT", '"$port"')
        return f"""\
{ctl} stop {UNIT}.service 2>/dev/null || true
{ctl} reset-failed {UNIT}.service 2>/dev/null || true
{self.make_home()}port=$({q(python)} -I -c {q(FREE_PORT)})
started=$(date +%s)
code=0
{run} --quiet --unit={UNIT} --property=Type=notify --property=KillMode=mixed{user} \\
  --property=TimeoutStartSec=300 --setenv=NEMOTRON_OPS_HOME={q(self.home)} --setenv=NEMOTRON_OPS_SYSTEM= \\
  {q(venv / "nemotron-ops")} {words} || code=$?
if [ "$code" = 0 ]; then
  {q(venv / "python")} -P -m nemotron_ops.deploy.on_target.canary "$port" || code=$?
else
  status=$({ctl} show -P ExecMainStatus {UNIT}.service)
  [ "$status" = {FitError.exit_code} ] && code={FitError.exit_code}
fi
[ "$code" = 0 ] || {journal} --output=cat --lines=30 --since="@$started" \\
  --{"" if system else "user-"}unit={UNIT}.service
{ctl} stop {UNIT}.service 2>/dev/null || true
{ctl} reset-failed {UNIT}.service 2>/dev/null || true
rm -rf {q(self.home)}
exit "$code"
"""
