"""The steps of a deploy up to the switch (the rest: `ending`), as shell scripts for the target. Pure.

Each one looks first and acts only where something is missing.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops import addresses
from nemotron_ops.deploy.steps.candidate import Candidate
from nemotron_ops.deploy.steps.facts import Site, TargetFacts
from nemotron_ops.deploy.steps.release import Parcel, Release, RemoteStep, Request
from nemotron_ops.deploy.steps.saved_state import Before
from nemotron_ops.deploy.steps.scripts import claim_script, journal, link, log, log_if_possible, prelude, q
from nemotron_ops.service.spec import CREDENTIALS, SERVICE, USER, Scope, sysusers_conf

# polkit may not let a user ask for it; whoever has sudo may
LINGER = """\
[ -e "/var/lib/systemd/linger/$(id -un)" ] || loginctl enable-linger 2>/dev/null \\
  || sudo -n loginctl enable-linger "$(id -un)" 2>/dev/null \\
  || echo "the service will end at logout; an administrator can change that: loginctl enable-linger $(id -un)"
"""
HUB_TOKEN = f"{CREDENTIALS}/hub-token"


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
    why: str = ""

    @property
    def dir(self) -> PurePosixPath:
        return self.site.release(self.name)

    @property
    def program(self) -> PurePosixPath:
        return self.site.release_program(self.name)

    @property
    def python_env(self) -> PurePosixPath:
        """The virtual environment of this release, shared by releases that differ only in what they serve."""
        return self.site.root / "programs" / self.release.bundle.sha256[:16]

    @property
    def systemctl(self) -> str:
        return "systemctl" if self.site.scope is Scope.SYSTEM else "systemctl --user"

    @property
    def _as_service(self) -> str:
        """Words before a command that writes builds or models: those belong to the service's user."""
        if self.site.scope is Scope.USER:
            return ""
        return f"runuser -u {USER} -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops "

    @property
    def candidate(self) -> Candidate:
        recipes, build = self.dir / "recipes", self.release.build_id
        return Candidate(site=self.site, recipes=recipes, config=self.config, build_id=build)

    @property
    def before(self) -> Before:
        return Before(site=self.site, config=self.config, keys_at=self._keys_at if self.release.keys else "")

    def note(self, event: str, *, why: str = "") -> str:
        return log(self.site, who=self.who, now=self.now, event=event, release=self.name, why=why)

    @property
    def failed(self) -> str:
        return log_if_possible(self.site, who=self.who, now=self.now, event="failed", release=self.name)

    def begin(self) -> RemoteStep:
        """Folders, the service's user, and a clean floor: releases that were never finished go."""
        system, root = "", self.site.root
        if self.site.scope is Scope.SYSTEM:
            # modes by name: root's umask may have made these folders before
            system = f"""\
install -d -m 0755 {q(root)} {q(self.site.releases)} {q(root / "programs")}
printf '%s' {q(sysusers_conf())} | systemd-sysusers -
install -d -o {USER} -g {USER} {q(self.site.data)} {q(self.site.data / "builds")} {q(self.site.data / "models")}
install -d -m 0755 /etc/nemotron-ops
"""
        else:
            system = f"{LINGER}mkdir -p {q(self.site.data / 'builds')} {q(self.site.data / 'models')}\n"
        why = f"deploy of {self.name}" + (f": {self.why}" if self.why else "")
        script = f"""\
mkdir -p {q(self.site.releases)} {q(self.site.incoming)}
{system}{claim_script(self.site, who=self.who, now=self.now, why=why)}{self.note("begin", why=self.why)}
for r in {q(self.site.releases)}/*; do
  [ -d "$r" ] && [ ! -f "$r/RELEASE.json" ] && [ "$r" != {q(self.dir)} ] && rm -rf "$r"
done
true
"""
        return RemoteStep(name="begin", about="make folders, drop unfinished releases", script=script)

    def unpack(self) -> RemoteStep:
        bundle = self.site.incoming / self.release.bundle.name
        about = {"release": self.name, "version": self.release.version, "by": self.who, "at": self.now}
        program = self.python_env
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
if [ ! -f {q(self.dir / "RELEASE.json")} ]; then
  rm -rf {q(self.dir)}; mkdir -p {q(self.dir)}
  ln -s {q(program)} {q(self.dir / "venv")}
{self._recipes()}
{self._keys()}  cat > {q(self.dir / "activate.sh")} <<'ACTIVATE'
{self._activate_sh()}ACTIVATE
  cat > {q(self.dir / "verify.sh")} <<'VERIFY'
{self._verify_sh()}VERIFY
  chmod 755 {q(self.dir / "activate.sh")} {q(self.dir / "verify.sh")}
  printf '%s\\n' {q(json.dumps(about))} > {q(self.dir / ".RELEASE.json")}
  sync {q(self.dir / ".RELEASE.json")}; mv {q(self.dir / ".RELEASE.json")} {q(self.dir / "RELEASE.json")}
fi
{q(self.program)} --version
"""
        about_ = f"install nemotron-ops {self.release.version} as release {self.name}"
        return RemoteStep(name="unpack", about=about_, script=script, send=self._parcels())

    def _parcels(self) -> tuple[Parcel, ...]:
        return (self.release.bundle, *((self.release.keys,) if self.release.keys else ()))

    def _keys(self) -> str:
        if not self.release.keys:
            return ""
        sent = self.site.incoming / self.release.keys.name
        return f"  install -m 600 {q(sent)} {q(self.dir / 'api-keys')}\n"

    @property
    def _keys_at(self) -> str:
        """Where the service reads its keys from: a credential of the system's, or a file of the user's."""
        if self.site.scope is Scope.SYSTEM:
            return f"{CREDENTIALS}/api-keys"
        return f"{self.facts.home}/.config/nemotron-ops/api-keys"

    def _recipes(self) -> str:
        lines = [f"  mkdir -p {q(self.dir / 'recipes')}"]
        for name, text in sorted(self.request.own_recipes.items()):
            lines.append(f"  printf '%s' {q(text)} > {q(self.dir / 'recipes' / f'{name}.toml')}")
        return "\n".join(lines)

    @property
    def config(self) -> str:
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
        words += [f"--serve-option={option}" for option in request.serve_options]
        words += [
            *request.service_words,
            "--no-build",
            "--no-fetch",
            "--take-over",
            "--ready-timeout",
            str(request.ready_s),
        ]
        use = (
            f"{self._as_service}{q(self.program)} builds use {q(self.release.build_id)}\n"
            if self.release.build_id
            else ""
        )
        return f"""\
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
{prelude(self.site.scope)}cd {q(self.site.root)}
mkdir -p {self.config}/recipes
cp -f releases/{self.name}/recipes/*.toml {self.config}/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in {self.config}/recipes/*.toml; do
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
        script = f"{self._as_service}{q(self.program)} {words}\n"
        return RemoteStep(name="build", about="build llama.cpp there (nothing to do if it is built)", script=script)

    def doctor(self) -> RemoteStep:
        """What is missing there is said before a compiler stumbles over it; needed only where one will run."""
        words = f"{self._as_service}{q(self.program)} doctor"
        if self.release.build or self.facts.builds:
            script = f"{words} --offline || echo 'going on: llama.cpp need not be compiled there'\n"
        else:
            script = f"{words}\n"
        return RemoteStep(name="doctor", about="check what the machine has", script=script)

    def send_model(self, recipe: str, files: tuple[Parcel, ...]) -> RemoteStep:
        folder = self.site.incoming / files[0].name
        own = f"chown -R {USER}:{USER} {q(folder.parent)}\n" if self.site.scope is Scope.SYSTEM else ""
        home, aside = self.candidate.home, self.candidate.folder()
        run = f"{self.candidate.words}{q(self.program)} models"
        return RemoteStep(
            name="model",
            about=f"bring the model of {recipe}; its bytes are proven there",
            script=f"{aside}{own}{run} import {q(folder.parent)}\nrm -rf {q(folder.parent)} {q(home)}\n",
            send=files,
            done_if=f"{aside}{run} verify --quick {q(recipe)} >/dev/null 2>&1\n",
        )

    def models(self) -> RemoteStep:
        fetched = [r for r in self.request.recipes if r not in self.release.models]
        lines = [self.candidate.folder().rstrip()]
        words = self.candidate.words
        if self.site.scope is Scope.SYSTEM:
            # a file that only the service's user reads, gone with the step: the token is in no environment
            lines.insert(0, f"token={q(self.site.root / '.hub-token')}; trap 'rm -f \"$token\"' EXIT")
            lines.append(f'[ ! -f {HUB_TOKEN} ] || install -o {USER} -m 400 {HUB_TOKEN} "$token"')
            words += 'HF_TOKEN_PATH="$token" '
        lines += [f"{words}{q(self.program)} fetch {q(r)}" for r in fetched]
        lines.append(f"rm -rf {q(self.candidate.home)}")
        return RemoteStep(name="models", about="fetch what is missing of the models", script="\n".join(lines) + "\n")

    def try_beside(self) -> RemoteStep:
        """Serve with the new release on a port of its own, beside the old one, and ask it one question."""
        script = self.candidate.try_script(self.request, venv=self.dir / "venv/bin", python=self.facts.python)
        return RemoteStep(name="try", about="serve with it beside the old one, and ask it one question", script=script)

    def _verify_sh(self) -> str:
        host = addresses.near(self.request.host)
        python = q(self.dir / "venv/bin/python")
        build = f" {q(self.release.build_id)}" if self.release.build_id else ""
        return f"""\
#!/bin/sh
# whether this release serves as it should; changes nothing
set -eu
{prelude(self.site.scope)}trap 'code=$?; [ $code = 0 ] || {journal(self.site.scope, SERVICE)}' EXIT
before=$({self.systemctl} show -P NRestarts {SERVICE})
sleep {self.request.stable_s}
end=$(( $(date +%s) + {self.request.ready_s} ))
while :; do
  code=0; {q(self.program)} status --json | {python} -m nemotron_ops.deploy.on_target.settled{build} || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || {{ {q(self.program)} status; exit 1; }}
  sleep 1
done
{python} -m nemotron_ops.deploy.on_target.canary {self.request.port} {q(host)}
[ "$({self.systemctl} show -P ActiveState {SERVICE})" = active ]
[ "$({self.systemctl} show -P NRestarts {SERVICE})" = "$before" ]
"""
