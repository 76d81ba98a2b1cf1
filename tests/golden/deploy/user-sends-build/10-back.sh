cd /home/me/.local/lib/nemotron-ops
rm -rf incoming LOCK.json
: > releases/1.2.3-7b1a537594/BAD || true; rm -f releases/1.2.3-7b1a537594/GOOD
{ printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-7b1a537594"}' >> /home/me/.local/lib/nemotron-ops/deploy.log; } 2>/dev/null || echo 'cannot write the audit log'
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-7b1a537594 ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
rm -f current
[ -d before ] || exit 0
gone=""; moved=""
cmp -s before/units/nemotron-ops.socket "$HOME/.config/systemd/user"/nemotron-ops.socket || moved=yes
for u in nemotron-ops.socket nemotron-ops.service nemotron-ops-engines.service nemotron-ops-prepare.service nemotron-ops-resume.service; do
  if [ -f before/units/$u ]; then cp -pf before/units/$u "$HOME/.config/systemd/user"/$u
  elif [ -f "$HOME/.config/systemd/user"/$u ]; then gone="$gone $u"; fi
done
if [ -n "$gone" ]; then
  systemctl --user stop $gone 2>/dev/null || true
  systemctl --user disable --quiet $gone 2>/dev/null || true
  for u in $gone; do rm -f "$HOME/.config/systemd/user"/$u; done
fi
for r in /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/recipes/*; do rm -f "$HOME/.config/nemotron-ops"/recipes/"${r##*/}"; done
[ ! -d before/config/recipes ] || cp -rpf before/config/recipes "$HOME/.config/nemotron-ops"/
if [ -f before/config/service.json ]; then cp -pf before/config/service.json "$HOME/.config/nemotron-ops"/
else rm -f "$HOME/.config/nemotron-ops"/service.json; fi
[ ! -f before/current.json ] || cp -pf before/current.json /home/me/.local/share/nemotron-ops/builds/current.json
systemctl --user daemon-reload
systemctl --user reset-failed $gone 2>/dev/null || true
if [ ! -f before/units/nemotron-ops.service ]; then echo "no service was there before, and none is now"
elif [ "$(cat before/state)" = active ]; then
  [ -z "$moved" ] || systemctl --user stop nemotron-ops.service nemotron-ops.socket
  /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/venv/bin/nemotron-ops service restart --user --ready-timeout 3600
else
  systemctl --user stop nemotron-ops.socket nemotron-ops.service nemotron-ops-engines.service
fi
rm -rf before
