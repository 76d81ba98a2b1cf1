"""The steps of a deploy, one by one, as shell scripts for the target. Pure.

Each one looks first and acts only where something is missing.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.deploy.candidate import Candidate
from nemotron_ops.deploy.release import Parcel, Release, RemoteStep, Request
from nemotron_ops.deploy.scripts import claim_script, link, log, prelude, q
from nemotron_ops.deploy.target import Site, TargetFacts
from nemotron_ops.service.units import CREDENTIALS, SERVICE, USER, Scope, sysusers_conf

# polkit may not let a user ask for it; whoever has sudo may
LINGER = """\
[ -e "/var/lib/systemd/linger/$(id -un)" ] || loginctl enable-linger 2>/dev/null \\
  || sudo -n loginctl enable-linger "$(id -un)" 2>/dev/null \\
  || echo "the service will end at logout; an administrator can change that: loginctl enable-linger $(id -un)"
"""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The scripts of one deploy to one target."""

    request: Request
    release: Release
    name: str
    facts: TargetFacts
    site: Site
    who: str
    now: str

    @property
    def _dir(self) -> PurePosixPath:
        return self.site.release(self.name)

    @property
    def _program(self) -> PurePosixPath:
        return self.site.release_program(self.name)

    @property
    def _systemctl(self) -> str:
        return "systemctl" if self.site.scope is Scope.SYSTEM else "systemctl --user"

    @property
    def _as_service(self) -> str:
        """Words before a command that writes builds or models: those belong to the service's user."""
        if self.site.scope is Scope.USER:
            return ""
        return f"runuser -u {USER} -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops "

    @property
    def _candidate(self) -> Candidate:
        recipes, build = self._dir / "recipes", self.release.build_id
        return Candidate(site=self.site, recipes=recipes, config=self._config, build_id=build)

    def _note(self, event: str) -> str:
        return log(self.site, who=self.who, now=self.now, event=event, release=self.name)

    def begin(self) -> RemoteStep:
        """Folders, the service's user, and a clean floor: releases that were never finished go."""
        system = ""
        if self.site.scope is Scope.SYSTEM:
            system = f"""\
printf '%s' {q(sysusers_conf())} | systemd-sysusers -
install -d -o {USER} -g {USER} {q(self.site.data)} {q(self.site.data / "builds")} {q(self.site.data / "models")}
install -d -m 0755 /etc/nemotron-ops
"""
        else:
            system = f"{LINGER}mkdir -p {q(self.site.data / 'builds')} {q(self.site.data / 'models')}\n"
        script = f"""\
mkdir -p {q(self.site.releases)} {q(self.site.incoming)}
{system}{claim_script(self.site, who=self.who, now=self.now, why=f"deploy of {self.name}")}{self._note("begin")}
for r in {q(self.site.releases)}/*; do
  [ -d "$r" ] && [ ! -f "$r/RELEASE.json" ] && [ "$r" != {q(self._dir)} ] && rm -rf "$r"
done
true
"""
        return RemoteStep(name="begin", about="make folders, drop unfinished releases", script=script)

    def unpack(self) -> RemoteStep:
        bundle = self.site.incoming / self.release.bundle.name
        about = {"release": self.name, "version": self.release.version, "by": self.who, "at": self.now}
        program = self.site.root / "programs" / self.release.bundle.sha256[:16]
        script = f"""\
if [ ! -f {q(program / "COMPLETE")} ]; then
  rm -rf {q(program)}; mkdir -p {q(program / "wheels")}
  tar -xf {q(bundle)} -C {q(program / "wheels")}
  # Debian's python3 has no ensurepip: pip runs from its own wheel
  {q(self.facts.python)} -m venv --without-pip {q(program)}
  pip=$(ls {q(program / "wheels")}/pip-*.whl)
  {q(program / "bin/python")} "$pip/pip" install --quiet --disable-pip-version-check --no-index \\
    --find-links {q(program / "wheels")} nemotron-ops=={self.release.version}
  rm -rf {q(program / "wheels")}
  {q(program / "bin/nemotron-ops")} --version
  sync {q(program)}; : > {q(program / "COMPLETE")}
fi
if [ ! -f {q(self._dir / "RELEASE.json")} ]; then
  rm -rf {q(self._dir)}; mkdir -p {q(self._dir)}
  ln -s {q(program)} {q(self._dir / "venv")}
{self._recipes()}
{self._keys()}  cat > {q(self._dir / "activate.sh")} <<'ACTIVATE'
{self._activate_sh()}ACTIVATE
  chmod 755 {q(self._dir / "activate.sh")}
  printf '%s\\n' {q(json.dumps(about))} > {q(self._dir / ".RELEASE.json")}
  sync {q(self._dir / ".RELEASE.json")}; mv {q(self._dir / ".RELEASE.json")} {q(self._dir / "RELEASE.json")}
fi
{q(self._program)} --version
"""
        about_ = f"install nemotron-ops {self.release.version} as release {self.name}"
        return RemoteStep(name="unpack", about=about_, script=script, send=self._parcels())

    def _parcels(self) -> tuple[Parcel, ...]:
        return (self.release.bundle, *((self.release.keys,) if self.release.keys else ()))

    def _keys(self) -> str:
        if not self.release.keys:
            return ""
        sent = self.site.incoming / self.release.keys.name
        return f"  install -m 600 {q(sent)} {q(self._dir / 'api-keys')}\n"

    @property
    def _keys_at(self) -> str:
        """Where the service reads its keys from: a credential of the system's, or a file of the user's."""
        if self.site.scope is Scope.SYSTEM:
            return f"{CREDENTIALS}/api-keys"
        return f"{self.facts.home}/.config/nemotron-ops/api-keys"

    def _recipes(self) -> str:
        lines = [f"  mkdir -p {q(self._dir / 'recipes')}"]
        for name, text in sorted(self.request.own_recipes.items()):
            lines.append(f"  printf '%s' {q(text)} > {q(self._dir / 'recipes' / f'{name}.toml')}")
        return "\n".join(lines)

    @property
    def _config(self) -> str:
        """The target's configuration folder, as a shell word."""
        return "/etc/nemotron-ops" if self.site.scope is Scope.SYSTEM else '"$HOME/.config/nemotron-ops"'

    def _activate_sh(self) -> str:
        request = self.request
        words = ["service", "install", *request.recipes, f"--{self.site.scope.value}", "--host", request.host]
        words += ["--port", str(request.port), *(["--profile", request.profile] if request.profile else [])]
        keys = ""
        if self.release.keys:
            keys = f"install -D -m 600 releases/{self.name}/api-keys {q(self._keys_at)}\n"
            if self.site.scope is Scope.USER:
                words += ["--serve-option=--api-key-file", f"--serve-option={self._keys_at}"]
        words += [*request.service_words, "--no-fetch", "--take-over", "--ready-timeout", str(request.ready_s)]
        use = (
            f"{self._as_service}{q(self._program)} builds use {q(self.release.build_id)}\n"
            if self.release.build_id
            else ""
        )
        return f"""\
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
{prelude(self.site.scope)}cd {q(self.site.root)}
mkdir -p {self._config}/recipes
cp -f releases/{self.name}/recipes/*.toml {self._config}/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in {self._config}/recipes/*.toml; do
  [ -f "releases/{self.name}/recipes/${{r##*/}}" ] && continue
  for d in releases/*/recipes; do
    if cmp -s "$r" "$d/${{r##*/}}"; then rm -f "$r"; break; fi
  done
done
{keys}{use}{link("current", f"releases/{self.name}")}
exec {q(self.site.program)} {shlex.join(words)}
"""

    def upload_build(self) -> RemoteStep:
        assert self.release.build is not None
        builds = self.site.data / "builds"
        dest = builds / self.release.build_id
        chown = f"  chown -R {USER}:{USER} {q(builds / '.sent')}\n" if self.site.scope is Scope.SYSTEM else ""
        script = f"""\
if [ ! -f {q(dest / "manifest.json")} ]; then
  rm -rf {q(builds / ".sent")}; mkdir -p {q(builds / ".sent")}
  tar -xf {q(self.site.incoming / self.release.build.name)} -C {q(builds / ".sent")}
{chown}  rm -rf {q(dest)}; mv -T {q(builds / ".sent" / self.release.build_id)} {q(dest)}
  rm -rf {q(builds / ".sent")}
fi
{q(dest / "bin/llama-server")} --version
"""
        about = f"bring llama.cpp build {self.release.build_id}, made here"
        return RemoteStep(name="build", about=about, script=script, send=(self.release.build,))

    def build_there(self) -> RemoteStep:
        words = shlex.join(("build", *self.request.build_words))
        # what is missing there is said before the compiler stumbles over it
        script = f"{q(self._program)} doctor || true\n{self._as_service}{q(self._program)} {words}\n"
        return RemoteStep(name="build", about="build llama.cpp there (nothing to do if it is built)", script=script)

    def send_model(self, recipe: str, files: tuple[Parcel, ...]) -> RemoteStep:
        folder = self.site.incoming / files[0].name
        own = f"chown -R {USER}:{USER} {q(folder.parent)}\n" if self.site.scope is Scope.SYSTEM else ""
        home, aside = self._candidate.home, self._candidate.folder()
        run = f"{self._candidate.words}{q(self._program)} models"
        return RemoteStep(
            name="model",
            about=f"bring the model of {recipe}; its bytes are proven there",
            script=f"{aside}{own}{run} import {q(folder.parent)}\nrm -rf {q(folder.parent)} {q(home)}\n",
            send=files,
            done_if=f"{aside}{run} verify --quick {q(recipe)} >/dev/null 2>&1\n",
        )

    def models(self) -> RemoteStep:
        token = "/etc/nemotron-ops/credentials/hub-token"
        lines = []
        if self.site.scope is Scope.SYSTEM:
            lines.append(f"if [ -f {token} ]; then HF_TOKEN=$(cat {token}); export HF_TOKEN; fi")
        fetched = [r for r in self.request.recipes if r not in self.release.models]
        lines.append(self._candidate.folder().rstrip())
        lines += [f"{self._candidate.words}{q(self._program)} fetch {q(r)}" for r in fetched]
        lines.append(f"rm -rf {q(self._candidate.home)}")
        return RemoteStep(name="models", about="fetch what is missing of the models", script="\n".join(lines) + "\n")

    def try_beside(self) -> RemoteStep:
        """Serve with the new release on a port of its own, beside the old one, and ask it one question."""
        script = self._candidate.try_script(self.request, venv=self._dir / "venv/bin", python=self.facts.python)
        return RemoteStep(name="try", about="serve with it beside the old one, and ask it one question", script=script)

    def activate(self) -> RemoteStep:
        script = f"""\
cd {q(self.site.root)}
{self._note("activate")}
old=$(readlink current || true)
if [ -n "$old" ] && [ "$old" != {q(f"releases/{self.name}")} ]; then {link("previous", '"$old"')}; fi
rm -f {q(self._dir / "BAD")}
exec {q(self._dir / "activate.sh")}
"""
        return RemoteStep(name="activate", about="switch `current`, hand over to the new release", script=script)

    def verify(self) -> RemoteStep:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.request.host, self.request.host)
        python = q(self._dir / "venv/bin/python")
        build = f" {q(self.release.build_id)}" if self.release.build_id else ""
        script = f"""\
before=$({self._systemctl} show -P NRestarts {SERVICE})
sleep {self.request.stable_s}
end=$(( $(date +%s) + {self.request.ready_s} ))
while :; do
  code=0; {q(self._program)} status --json | {python} -m nemotron_ops.deploy.settled{build} || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || {{ {q(self._program)} status; exit 1; }}
  sleep 1
done
{python} -m nemotron_ops.deploy.canary {self.request.port} {q(host)}
[ "$({self._systemctl} show -P ActiveState {SERVICE})" = active ]
[ "$({self._systemctl} show -P NRestarts {SERVICE})" = "$before" ]
"""
        return RemoteStep(
            name="verify", about="all at rest and as asked for, a question at the door, no restart", script=script
        )

    def finish(self) -> RemoteStep:
        root = q(self.site.root)
        script = f"""\
cd {root}
: > releases/{self.name}/GOOD; rm -f releases/{self.name}/BAD
{self._note("good")}
rm -rf incoming LOCK.json
keep=" $(basename "$(readlink current)") $(basename "$(readlink previous || echo -)") "
for r in $(ls -t releases | tail -n +{self.request.keep + 1}); do
  case "$keep" in *" $r "*) ;; *) rm -rf "releases/$r" ;; esac
done
used=" $(for r in releases/*; do basename "$(readlink "$r/venv" || echo -)"; done | tr '\\n' ' ') "
for p in programs/*; do
  case "$used" in *" $(basename "$p") "*) ;; *) rm -rf "$p" ;; esac
done
"""
        return RemoteStep(name="finish", about=f"mark it good, keep {self.request.keep} releases", script=script)

    def withdraw(self) -> RemoteStep:
        """After a failure before the switch: the old release was never touched."""
        script = f"""\
cd {q(self.site.root)}
{self._note("failed")}
rm -f LOCK.json
if [ -d releases/{self.name} ] && [ "$(readlink current || true)" != releases/{self.name} ]; then
  : > releases/{self.name}/BAD
fi
"""
        return RemoteStep(name="withdraw", about="mark it bad; the old release serves on", script=script)

    def back(self) -> RemoteStep:
        """After a failure from the switch on: the previous release serves again; without one, nothing does."""
        script = f"""\
cd {q(self.site.root)}
{self._note("failed")}
rm -f LOCK.json
: > releases/{self.name}/BAD; rm -f releases/{self.name}/GOOD
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/{self.name} ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
{q(self._program)} service uninstall --{self.site.scope.value} || true
rm -f current
"""
        return RemoteStep(name="back", about="the previous release serves again", script=script)
