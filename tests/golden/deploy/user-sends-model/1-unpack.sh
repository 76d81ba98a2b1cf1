if [ ! -f /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE ]; then
  rm -rf /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa; mkdir -p /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  tar -xf /home/me/.local/lib/nemotron-ops/incoming/bundle-aaaa.tar -C /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  # Debian's python3 has no ensurepip: pip runs from its own wheel
  /usr/bin/python3.11 -m venv --without-pip /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa
  pip=$(ls /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels/pip-*.whl)
  /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/python "$pip/pip" install --quiet --disable-pip-version-check --no-index \
    --find-links /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels nemotron-ops==1.2.3
  rm -rf /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/wheels
  /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/bin/nemotron-ops --version
  sync /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa; : > /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE
fi
if [ ! -f /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/RELEASE.json ]; then
  rm -rf /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f; mkdir -p /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f
  ln -s /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv
  mkdir -p /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/recipes
  cat > /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/activate.sh <<'ACTIVATE'
#!/bin/sh
# makes this release the one that serves; safe to run again
set -eu
export XDG_RUNTIME_DIR="/run/user/$(id -u)" NO_COLOR=1
cd /home/me/.local/lib/nemotron-ops
mkdir -p "$HOME/.config/nemotron-ops"/recipes
cp -f releases/1.2.3-5370cec70f/recipes/*.toml "$HOME/.config/nemotron-ops"/recipes/ 2>/dev/null || true
# recipes that only came with another release must not hide the shipped ones of that name
for r in "$HOME/.config/nemotron-ops"/recipes/*.toml; do
  [ -f "releases/1.2.3-5370cec70f/recipes/${r##*/}" ] && continue
  for d in releases/*/recipes; do
    if cmp -s "$r" "$d/${r##*/}"; then rm -f "$r"; break; fi
  done
done
/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops builds use cpu-1234
rm -f .current.new; ln -s releases/1.2.3-5370cec70f .current.new; mv -T .current.new current
exec /home/me/.local/lib/nemotron-ops/current/venv/bin/nemotron-ops service install 30b --user --host 127.0.0.1 --port 8001 --no-fetch --take-over --ready-timeout 3600
ACTIVATE
  chmod 755 /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/activate.sh
  printf '%s\n' '{"release": "1.2.3-5370cec70f", "version": "1.2.3", "by": "ann@desk", "at": "2026-01-01T00:00:00+00:00"}' > /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/.RELEASE.json
  sync /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/.RELEASE.json; mv /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/.RELEASE.json /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/RELEASE.json
fi
/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops --version
