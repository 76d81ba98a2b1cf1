"""The steps of a deploy up to the switch, as shell scripts for the target. Pure.

Each script looks first and acts only where something is missing.
"""

from __future__ import annotations

import json
import shlex

from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.release import Artifact, RemoteStep
from nemotron_ops.deploy.steps.release_scripts import activate_sh, verify_sh
from nemotron_ops.deploy.steps.scripts import claim_script, q
from nemotron_ops.service.spec import CREDENTIALS, USER, sysusers_conf

# polkit may refuse a user's own request; sudo may be allowed
LINGER = """\
[ -e "/var/lib/systemd/linger/$(id -un)" ] || loginctl enable-linger 2>/dev/null \\
  || sudo -n loginctl enable-linger "$(id -un)" 2>/dev/null \\
  || echo "the service will end at logout; an administrator can change that: loginctl enable-linger $(id -un)"
"""
HUB_TOKEN = f"{CREDENTIALS}/hub-token"


def begin(ctx: Context) -> RemoteStep:
    """Makes the folders and the service's user; removes unfinished releases."""
    why = f"deploy of {ctx.name}" + (f": {ctx.why}" if ctx.why else "")
    script = f"""\
mkdir -p {q(ctx.site.releases)} {q(ctx.site.incoming)}
{_folders(ctx)}{claim_script(ctx.site, who=ctx.who, now=ctx.now, why=why)}{ctx.audit("begin", why=ctx.why)}
for r in {q(ctx.site.releases)}/*; do
  [ -d "$r" ] && [ ! -f "$r/RELEASE.json" ] && [ "$r" != {q(ctx.release_dir)} ] && rm -rf "$r"
done
true
"""
    return RemoteStep(name="begin", about="make folders, drop unfinished releases", script=script)


def unpack(ctx: Context) -> RemoteStep:
    """Installs the program from its bundle, and writes the release: recipes, keys, activate.sh and verify.sh."""
    release, release_dir, program = ctx.release, ctx.release_dir, ctx.python_env
    bundle = ctx.site.incoming / release.bundle.name
    record = {"release": ctx.name, "version": release.version, "by": ctx.who, "at": ctx.now}
    script = f"""\
if [ ! -f {q(program / "COMPLETE")} ]; then
  # pip itself comes from the bundle: nothing in it runs before its bytes are known
  printf '%s  %s\\n' {release.bundle.sha256} {q(bundle)} | sha256sum -c --quiet - >/dev/null 2>&1 \\
    || {{ echo {q(f"cannot install {bundle}: it is not the bundle that this release was made from")}; exit 1; }}
  rm -rf {q(program)}; mkdir -p {q(program / "wheels")}
  tar -xf {q(bundle)} -C {q(program / "wheels")}
  # Debian's python3 has no ensurepip: pip runs from its own wheel
  {q(ctx.facts.python)} -m venv --without-pip {q(program)}
  pip=$(ls {q(program / "wheels")}/pip-*.whl)
  {q(program / "bin/python")} "$pip/pip" install --quiet --disable-pip-version-check --no-index --no-deps \\
    --require-hashes --find-links {q(program / "wheels")} --requirement {q(program / "wheels/requirements.txt")}
  {q(program / "bin/python")} "$pip/pip" --disable-pip-version-check check
  rm -rf {q(program / "wheels")}
  {q(program / "bin/nemotron-ops")} --version
  sync {q(program)}; : > {q(program / "COMPLETE")}
fi
if [ ! -f {q(release_dir / "RELEASE.json")} ]; then
  rm -rf {q(release_dir)}; mkdir -p {q(release_dir)}
  ln -s {q(program)} {q(release_dir / "venv")}
{_recipes(ctx)}
{_keys(ctx)}  cat > {q(release_dir / "activate.sh")} <<'ACTIVATE'
{activate_sh(ctx)}ACTIVATE
  cat > {q(release_dir / "verify.sh")} <<'VERIFY'
{verify_sh(ctx)}VERIFY
  chmod 755 {q(release_dir / "activate.sh")} {q(release_dir / "verify.sh")}
  printf '%s\\n' {q(json.dumps(record))} > {q(release_dir / ".RELEASE.json")}
  sync {q(release_dir / ".RELEASE.json")}; mv {q(release_dir / ".RELEASE.json")} {q(release_dir / "RELEASE.json")}
fi
{q(ctx.program)} --version
"""
    about = f"install nemotron-ops {release.version} as release {ctx.name}"
    send = (release.bundle, *((release.keys,) if release.keys else ()))
    return RemoteStep(name="unpack", about=about, script=script, send=send)


def doctor(ctx: Context) -> RemoteStep:
    """Reports what is missing before a compiler needs it; a failure only where llama.cpp is compiled on the target."""
    words = f"{ctx.as_service_user}{q(ctx.program)} doctor"
    if ctx.release.build or ctx.facts.builds:
        script = f"{words} --offline || echo 'going on: llama.cpp need not be compiled there'\n"
    else:
        script = f"{words}\n"
    return RemoteStep(name="doctor", about="check the machine", script=script)


def upload_build(ctx: Context) -> RemoteStep:
    """Unpacks the build that was sent, unless the target has it."""
    assert ctx.release.build is not None
    builds = ctx.site.data / "builds"
    dest = builds / ctx.release.build_id
    chown = f"  chown -R {USER}:{USER} {q(builds / '.sent')}\n" if ctx.system else ""
    script = f"""\
if [ ! -f {q(dest / "manifest.json")} ]; then
  rm -rf {q(builds / ".sent")}; mkdir -p {q(builds / ".sent")}
  tar -xf {q(ctx.site.incoming / ctx.release.build.name)} -C {q(builds / ".sent")}
{chown}  rm -rf {q(dest)}; mv -T {q(builds / ".sent" / ctx.release.build_id)} {q(dest)}
  rm -rf {q(builds / ".sent")}
fi
{q(dest / "bin/llama-server")} --version
"""
    about = f"send llama.cpp build {ctx.release.build_id}"
    return RemoteStep(name="build", about=about, script=script, send=(ctx.release.build,))


def build_on_target(ctx: Context) -> RemoteStep:
    words = shlex.join(("build", *ctx.request.build_words))
    script = f"{ctx.as_service_user}{q(ctx.program)} {words}\n"
    return RemoteStep(name="build", about="build llama.cpp (nothing to do if it is built)", script=script)


def send_model(ctx: Context, recipe: str, files: tuple[Artifact, ...]) -> RemoteStep:
    """Imports a model that was sent, unless the target has it."""
    folder = ctx.site.incoming / files[0].name
    own = f"chown -R {USER}:{USER} {q(folder.parent)}\n" if ctx.system else ""
    home, make_home = ctx.candidate.home, ctx.candidate.make_home()
    run = f"{ctx.candidate.words}{q(ctx.program)} models"
    return RemoteStep(
        name="model",
        about=f"send the model of {recipe}, verify its bytes",
        script=f"{make_home}{own}{run} import {q(folder.parent)}\nrm -rf {q(folder.parent)} {q(home)}\n",
        send=files,
        done_if=f"{make_home}{run} verify --quick {q(recipe)} >/dev/null 2>&1\n",
    )


def fetch_models(ctx: Context) -> RemoteStep:
    """Fetches the models that were not sent, as the service's user."""
    fetched = [r for r in ctx.request.recipes if r not in ctx.release.models]
    lines = [ctx.candidate.make_home().rstrip()]
    words = ctx.candidate.words
    if ctx.system:
        # the token is in no environment: a file that only the service's user reads, removed when the step ends
        lines.insert(0, f"token={q(ctx.site.root / '.hub-token')}; trap 'rm -f \"$token\"' EXIT")
        lines.append(f'[ ! -f {HUB_TOKEN} ] || install -o {USER} -m 400 {HUB_TOKEN} "$token"')
        words += 'HF_TOKEN_PATH="$token" '
    lines += [f"{words}{q(ctx.program)} fetch {q(r)}" for r in fetched]
    lines.append(f"rm -rf {q(ctx.candidate.home)}")
    return RemoteStep(name="models", about="fetch missing models", script="\n".join(lines) + "\n")


def try_candidate(ctx: Context) -> RemoteStep:
    """Serves with the new release on a port of its own, beside the old one, and asks it one question."""
    python = ctx.facts.python
    script = ctx.candidate.try_script(ctx.request, venv=ctx.release_dir / "venv/bin", python=python)
    return RemoteStep(name="try", about="serve beside the old release, and ask one question", script=script)


def _folders(ctx: Context) -> str:
    data = ctx.site.data
    if not ctx.system:
        return f"{LINGER}mkdir -p {q(data / 'builds')} {q(data / 'models')}\n"
    root = ctx.site.root
    # explicit modes: root's umask may have made these folders earlier
    return f"""\
install -d -m 0755 {q(root)} {q(ctx.site.releases)} {q(root / "programs")}
printf '%s' {q(sysusers_conf())} | systemd-sysusers -
install -d -o {USER} -g {USER} {q(data)} {q(data / "builds")} {q(data / "models")}
install -d -m 0755 /etc/nemotron-ops
"""


def _recipes(ctx: Context) -> str:
    folder = ctx.release_dir / "recipes"
    lines = [f"  mkdir -p {q(folder)}"]
    for name, text in sorted(ctx.request.own_recipes.items()):
        lines.append(f"  printf '%s' {q(text)} > {q(folder / name)}")
    return "\n".join(lines)


def _keys(ctx: Context) -> str:
    if not ctx.release.keys:
        return ""
    sent = ctx.site.incoming / ctx.release.keys.name
    return f"  install -m 600 {q(sent)} {q(ctx.release_dir / 'api-keys')}\n"
