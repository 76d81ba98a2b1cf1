"""The state of a target before its first deploy: saved before the switch, restored if the deploy fails. Pure.

A service may have been installed by hand. The first switch overwrites its units and its record, and may overwrite
recipes, keys and the choice of the build; all of that is copied into ROOT/before. Restoring puts it back and removes
only what the deploy itself added. Settings, credentials and all other files stay untouched.

    ROOT/before/units           unit files
    ROOT/before/config          service.json, api-keys, recipes
    ROOT/before/current.json    the chosen build
    ROOT/before/state           the state of the service, such as "active"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.deploy.steps.facts import Site
from nemotron_ops.deploy.steps.scripts import q
from nemotron_ops.service.spec import ENGINES, PREPARE, RESUME, SERVICE, SOCKET, Scope

UNITS = (SOCKET, SERVICE, ENGINES, PREPARE, RESUME)


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """`config` is the target's configuration folder as a shell word; `keys_path` the deploy's key file, or ""."""

    site: Site
    config: str
    keys_path: str = ""

    @property
    def _units(self) -> str:
        """The folder of unit files, as a shell word."""
        return "/etc/systemd/system" if self.site.scope is Scope.SYSTEM else '"$HOME/.config/systemd/user"'

    @property
    def _ctl(self) -> str:
        return "systemctl" if self.site.scope is Scope.SYSTEM else "systemctl --user"

    def save(self) -> str:
        """Run in ROOT: copies the state once, while no release serves yet."""
        keys = f"cp -p {q(self.keys_path)} .before/config/ 2>/dev/null || true\n  " if self.keys_path else ""
        return f"""\
if [ ! -L current ] && [ ! -d before ]; then
  rm -rf .before; (umask 077; mkdir -p .before/units .before/config)
  for u in {" ".join(UNITS)}; do [ ! -f {self._units}/$u ] || cp -p {self._units}/$u .before/units/; done
  [ ! -f {self.config}/service.json ] || cp -p {self.config}/service.json .before/config/
  [ ! -d {self.config}/recipes ] || cp -rp {self.config}/recipes .before/config/
  {keys}cp -p {q(self.site.data / "builds/current.json")} .before/ 2>/dev/null || true
  {self._ctl} is-active {SERVICE} > .before/state 2>/dev/null || true
  mv -T .before before
fi
"""

    def restore(self, *, release: PurePosixPath, program: PurePosixPath, ready_s: int) -> str:
        """Run in ROOT: restores the state; the earlier service serves again, if there was one."""
        scope = self.site.scope.value
        keys = ""
        if self.keys_path:
            kept = f"before/config/{PurePosixPath(self.keys_path).name}"
            keys = f"if [ -f {kept} ]; then cp -pf {kept} {q(self.keys_path)}; else rm -f {q(self.keys_path)}; fi\n"
        return f"""\
rm -f current
[ -d before ] || exit 0
gone=""; moved=""
cmp -s before/units/{SOCKET} {self._units}/{SOCKET} || moved=yes
for u in {" ".join(UNITS)}; do
  if [ -f before/units/$u ]; then cp -pf before/units/$u {self._units}/$u
  elif [ -f {self._units}/$u ]; then gone="$gone $u"; fi
done
if [ -n "$gone" ]; then
  {self._ctl} stop $gone 2>/dev/null || true
  {self._ctl} disable --quiet $gone 2>/dev/null || true
  for u in $gone; do rm -f {self._units}/$u; done
fi
for r in {q(release)}/recipes/*; do rm -f {self.config}/recipes/"${{r##*/}}"; done
[ ! -d before/config/recipes ] || cp -rpf before/config/recipes {self.config}/
if [ -f before/config/service.json ]; then cp -pf before/config/service.json {self.config}/
else rm -f {self.config}/service.json; fi
{keys}[ ! -f before/current.json ] || cp -pf before/current.json {q(self.site.data / "builds/current.json")}
{self._ctl} daemon-reload
{self._ctl} reset-failed $gone 2>/dev/null || true
if [ ! -f before/units/{SERVICE} ]; then echo "no service was there before, and none is now"
elif [ "$(cat before/state)" = active ]; then
  [ -z "$moved" ] || {self._ctl} stop {SERVICE} {SOCKET}
  {q(program)} service restart --{scope} --ready-timeout {ready_s}
else
  {self._ctl} stop {SOCKET} {SERVICE} {ENGINES}
fi
rm -rf before
"""
