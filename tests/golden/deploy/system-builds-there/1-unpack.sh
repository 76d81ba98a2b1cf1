if [ ! -f /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE ]; then
  # pip itself comes from the bundle: nothing in it runs before its bytes are known
  printf '%s  %s\n' aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa /opt/nemotron-ops/incoming/bundle-aaaa.tar | sha256sum -c --quiet - >/dev/null 2>&1 \
    || { echo 'cannot install /opt/nemotron-ops/incoming/bundle-aaaa.tar: it is not the bundle that this release was made from'; exit 1; }
  rm -rf /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa; mkdir -p /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  tar -xf /opt/nemotron-ops/incoming/bundle-aaaa.tar -C /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  # Debian's python3 has no ensurepip: pip runs from its own wheel
  /usr/bin/python3.11 -m venv --without-pip /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa
  pip=$(ls /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels/pip-*.whl)
  /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/python "$pip/pip" install --quiet --disable-pip-version-check --no-index --no-deps \
    --require-hashes --find-links /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels --requirement /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels/requirements.txt
  /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/python "$pip/pip" --disable-pip-version-check check
  rm -rf /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/nemotron-ops --version
  sync /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa; : > /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE
fi
if [ ! -f /opt/nemotron-ops/releases/1.2.3-1e026844f2/RELEASE.json ]; then
  rm -rf /opt/nemotron-ops/releases/1.2.3-1e026844f2; mkdir -p /opt/nemotron-ops/releases/1.2.3-1e026844f2
  ln -s /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv
  mkdir -p /opt/nemotron-ops/releases/1.2.3-1e026844f2/recipes
  printf '%s' 'title = '"'"'it'"'"'
' > /opt/nemotron-ops/releases/1.2.3-1e026844f2/recipes/mine.toml
  install -m 600 /opt/nemotron-ops/incoming/keys-cccc.json /opt/nemotron-ops/releases/1.2.3-1e026844f2/api-keys
  cat > /opt/nemotron-ops/releases/1.2.3-1e026844f2/activate.sh <<'ACTIVATE'
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
umask 022
export NEMOTRON_OPS_SYSTEM=1
cd /opt/nemotron-ops
mkdir -p /etc/nemotron-ops/recipes
cp -f releases/1.2.3-1e026844f2/recipes/* /etc/nemotron-ops/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in /etc/nemotron-ops/recipes/*.toml /etc/nemotron-ops/recipes/*.jinja; do
  [ -f "releases/1.2.3-1e026844f2/recipes/${r##*/}" ] && continue
  for d in releases/*/recipes; do
    if cmp -s "$r" "$d/${r##*/}"; then rm -f "$r"; break; fi
  done
done
install -D -m 600 releases/1.2.3-1e026844f2/api-keys /etc/nemotron-ops/credentials/api-keys
rm -f .current.new; ln -s releases/1.2.3-1e026844f2 .current.new; mv -T .current.new current
exec /opt/nemotron-ops/current/venv/bin/nemotron-ops service install 30b mine --system --host 0.0.0.0 --port 8001 --profile guide --serve-option=--ctx-size --serve-option=8192 --allow-from 10.0.0.0/8 --no-build --no-fetch --take-over --ready-timeout 3600
ACTIVATE
  cat > /opt/nemotron-ops/releases/1.2.3-1e026844f2/verify.sh <<'VERIFY'
#!/bin/sh
# whether this release serves as it should; changes nothing
set -eu
umask 022
export NEMOTRON_OPS_SYSTEM=1
trap 'code=$?; [ $code = 0 ] || journalctl --no-pager --output=cat --lines=30 --unit=nemotron-ops.service' EXIT
before=$(systemctl show -P NRestarts nemotron-ops.service)
sleep 3
end=$(( $(date +%s) + 3600 ))
while :; do
  code=0; /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops status --json | /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/python -P -m nemotron_ops.deploy.on_target.settled || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || { /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops status; exit 1; }
  sleep 1
done
/opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/python -P -m nemotron_ops.deploy.on_target.canary 8001 127.0.0.1
[ "$(systemctl show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl show -P NRestarts nemotron-ops.service)" = "$before" ]
VERIFY
  chmod 755 /opt/nemotron-ops/releases/1.2.3-1e026844f2/activate.sh /opt/nemotron-ops/releases/1.2.3-1e026844f2/verify.sh
  printf '%s\n' '{"release": "1.2.3-1e026844f2", "version": "1.2.3", "by": "ann@desk", "at": "2026-01-01T00:00:00+00:00"}' > /opt/nemotron-ops/releases/1.2.3-1e026844f2/.RELEASE.json
  sync /opt/nemotron-ops/releases/1.2.3-1e026844f2/.RELEASE.json; mv /opt/nemotron-ops/releases/1.2.3-1e026844f2/.RELEASE.json /opt/nemotron-ops/releases/1.2.3-1e026844f2/RELEASE.json
fi
/opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops --version
