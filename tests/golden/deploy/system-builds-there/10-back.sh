cd /opt/nemotron-ops
rm -rf incoming LOCK.json
: > releases/1.2.3-1e026844f2/BAD || true; rm -f releases/1.2.3-1e026844f2/GOOD
{ printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-1e026844f2"}' >> /opt/nemotron-ops/deploy.log; } 2>/dev/null || echo 'cannot write the audit log'
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-1e026844f2 ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
rm -f current
[ -d before ] || exit 0
gone=""; moved=""
cmp -s before/units/nemotron-ops.socket /etc/systemd/system/nemotron-ops.socket || moved=yes
for u in nemotron-ops.socket nemotron-ops.service nemotron-ops-engines.service nemotron-ops-prepare.service nemotron-ops-resume.service; do
  if [ -f before/units/$u ]; then cp -pf before/units/$u /etc/systemd/system/$u
  elif [ -f /etc/systemd/system/$u ]; then gone="$gone $u"; fi
done
if [ -n "$gone" ]; then
  systemctl stop $gone 2>/dev/null || true
  systemctl disable --quiet $gone 2>/dev/null || true
  for u in $gone; do rm -f /etc/systemd/system/$u; done
fi
for r in /opt/nemotron-ops/releases/1.2.3-1e026844f2/recipes/*; do rm -f /etc/nemotron-ops/recipes/"${r##*/}"; done
[ ! -d before/config/recipes ] || cp -rpf before/config/recipes /etc/nemotron-ops/
if [ -f before/config/service.json ]; then cp -pf before/config/service.json /etc/nemotron-ops/
else rm -f /etc/nemotron-ops/service.json; fi
if [ -f before/config/api-keys ]; then cp -pf before/config/api-keys /etc/nemotron-ops/credentials/api-keys; else rm -f /etc/nemotron-ops/credentials/api-keys; fi
[ ! -f before/current.json ] || cp -pf before/current.json /var/lib/nemotron-ops/builds/current.json
systemctl daemon-reload
systemctl reset-failed $gone 2>/dev/null || true
if [ ! -f before/units/nemotron-ops.service ]; then echo "no service was there before, and none is now"
elif [ "$(cat before/state)" = active ]; then
  [ -z "$moved" ] || systemctl stop nemotron-ops.service nemotron-ops.socket
  /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops service restart --system --ready-timeout 3600
else
  systemctl stop nemotron-ops.socket nemotron-ops.service nemotron-ops-engines.service
fi
rm -rf before
