if [ ! -f /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE ]; then
  # pip itself comes from the bundle: nothing in it runs before its bytes are known
  printf '%s  %s\n' aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa /home/me/.local/lib/nemotron-ops/incoming/bundle-aaaa.tar | sha256sum -c --quiet - >/dev/null 2>&1 \
    || { echo 'cannot install /home/me/.local/lib/nemotron-ops/incoming/bundle-aaaa.tar: it is not the bundle that this release was made from'; exit 1; }
  rm -rf /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa; mkdir -p /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  tar -xf /home/me/.local/lib/nemotron-ops/incoming/bundle-aaaa.tar -C /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  # Debian's python3 has no ensurepip: pip runs from its own wheel
  /usr/bin/python3.11 -m venv --without-pip /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa
  pip=$(ls /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels/pip-*.whl)
  /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/python "$pip/pip" install --quiet --disable-pip-version-check --no-index --no-deps \
    --require-hashes --find-links /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels --requirement /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels/requirements.txt
  /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/python "$pip/pip" --disable-pip-version-check check
  rm -rf /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/nemotron-ops --version
  sync /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa; : > /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE
fi
if [ ! -f /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/RELEASE.json ]; then
  rm -rf /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3; mkdir -p /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3
  ln -s /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv
  mkdir -p /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/recipes
  install -m 600 /home/me/.local/lib/nemotron-ops/incoming/keys-cccc.json /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/api-keys
  cat > /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/activate.sh <<'ACTIVATE'
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
export XDG_RUNTIME_DIR="/run/user/$(id -u)" NO_COLOR=1
cd /home/me/.local/lib/nemotron-ops
mkdir -p "$HOME/.config/nemotron-ops"/recipes
cp -f releases/1.2.3-f05afeb3a3/recipes/* "$HOME/.config/nemotron-ops"/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in "$HOME/.config/nemotron-ops"/recipes/*.toml "$HOME/.config/nemotron-ops"/recipes/*.jinja; do
  [ -f "releases/1.2.3-f05afeb3a3/recipes/${r##*/}" ] && continue
  for d in releases/*/recipes; do
    if cmp -s "$r" "$d/${r##*/}"; then rm -f "$r"; break; fi
  done
done
install -D -m 600 releases/1.2.3-f05afeb3a3/api-keys /home/me/.config/nemotron-ops/api-keys
/home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/nemotron-ops builds use cpu-1234
rm -f .current.new; ln -s releases/1.2.3-f05afeb3a3 .current.new; mv -T .current.new current
exec /home/me/.local/lib/nemotron-ops/current/venv/bin/nemotron-ops service install 30b --user --host 127.0.0.1 --port 8001 --serve-option=--api-key-file --serve-option=/home/me/.config/nemotron-ops/api-keys --no-build --no-fetch --take-over --ready-timeout 3600
ACTIVATE
  cat > /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/verify.sh <<'VERIFY'
#!/bin/sh
# whether this release serves as it should; changes nothing
set -eu
export XDG_RUNTIME_DIR="/run/user/$(id -u)" NO_COLOR=1
trap 'code=$?; [ $code = 0 ] || journalctl --no-pager --output=cat --lines=30 --user-unit=nemotron-ops.service' EXIT
before=$(systemctl --user show -P NRestarts nemotron-ops.service)
sleep 3
end=$(( $(date +%s) + 3600 ))
while :; do
  code=0; /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/nemotron-ops status --json | /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/python -P -m nemotron_ops.deploy.on_target.settled cpu-1234 || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || { /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/nemotron-ops status; exit 1; }
  sleep 1
done
/home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/python -P -m nemotron_ops.deploy.on_target.canary 8001 127.0.0.1
[ "$(systemctl --user show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl --user show -P NRestarts nemotron-ops.service)" = "$before" ]
VERIFY
  chmod 755 /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/activate.sh /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/verify.sh
  printf '%s\n' '{"release": "1.2.3-f05afeb3a3", "version": "1.2.3", "by": "ann@desk", "at": "2026-01-01T00:00:00+00:00"}' > /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/.RELEASE.json
  sync /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/.RELEASE.json; mv /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/.RELEASE.json /home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/RELEASE.json
fi
/home/me/.local/lib/nemotron-ops/releases/1.2.3-f05afeb3a3/venv/bin/nemotron-ops --version
