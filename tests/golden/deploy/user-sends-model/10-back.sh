cd /home/me/.local/lib/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-5370cec70f"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
rm -f LOCK.json
: > releases/1.2.3-5370cec70f/BAD; rm -f releases/1.2.3-5370cec70f/GOOD
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-5370cec70f ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops service uninstall --user || true
rm -f current
