"""The two scripts that stay in a release: `activate.sh` switches to it, `verify.sh` checks that it serves. Pure."""

from __future__ import annotations

import shlex

from nemotron_ops import addresses
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.scripts import journal, link, prelude, q
from nemotron_ops.service.spec import SERVICE


def activate_sh(ctx: Context) -> str:
    """Puts keys and recipes in place, chooses the build, points `current` here and installs the service."""
    keys = f"install -D -m 600 releases/{ctx.name}/api-keys {q(ctx.keys_path)}\n" if ctx.release.keys else ""
    build = ctx.release.build_id
    use = f"{ctx.as_service_user}{q(ctx.program)} builds use {q(build)}\n" if build else ""
    return f"""\
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
{prelude(ctx.site.scope)}cd {q(ctx.site.root)}
mkdir -p {ctx.config}/recipes
cp -f releases/{ctx.name}/recipes/* {ctx.config}/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in {ctx.config}/recipes/*.toml {ctx.config}/recipes/*.jinja; do
  [ -f "releases/{ctx.name}/recipes/${{r##*/}}" ] && continue
  for d in releases/*/recipes; do
    if cmp -s "$r" "$d/${{r##*/}}"; then rm -f "$r"; break; fi
  done
done
{keys}{use}{link("current", f"releases/{ctx.name}")}
exec {q(ctx.site.program)} {shlex.join(_install_words(ctx))}
"""


def verify_sh(ctx: Context) -> str:
    """Waits until the service has settled, asks it one question, and fails if it was restarted meanwhile."""
    host = addresses.near(ctx.request.host)
    python = q(ctx.release_dir / "venv/bin/python")
    build = f" {q(ctx.release.build_id)}" if ctx.release.build_id else ""
    return f"""\
#!/bin/sh
# whether this release serves as it should; changes nothing
set -eu
{prelude(ctx.site.scope)}trap 'code=$?; [ $code = 0 ] || {journal(ctx.site.scope, SERVICE)}' EXIT
before=$({ctx.systemctl} show -P NRestarts {SERVICE})
sleep {ctx.request.stable_s}
end=$(( $(date +%s) + {ctx.request.ready_s} ))
while :; do
  code=0; {q(ctx.program)} status --json | {python} -P -m nemotron_ops.deploy.on_target.settled{build} || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || {{ {q(ctx.program)} status; exit 1; }}
  sleep 1
done
{python} -P -m nemotron_ops.deploy.on_target.canary {ctx.request.port} {q(host)}
[ "$({ctx.systemctl} show -P ActiveState {SERVICE})" = active ]
[ "$({ctx.systemctl} show -P NRestarts {SERVICE})" = "$before" ]
"""


def _install_words(ctx: Context) -> list[str]:
    """The words of `service install` for this release."""
    request = ctx.request
    words = ["service", "install", *request.recipes, f"--{ctx.site.scope.value}", "--host", request.host]
    words += ["--port", str(request.port), *(["--profile", request.profile] if request.profile else [])]
    if ctx.release.keys and not ctx.system:
        words += ["--serve-option=--api-key-file", f"--serve-option={ctx.keys_path}"]
    words += [f"--serve-option={option}" for option in request.serve_options]
    words += [*request.service_words, "--no-build", "--no-fetch", "--take-over"]
    return [*words, "--ready-timeout", str(request.ready_s)]
