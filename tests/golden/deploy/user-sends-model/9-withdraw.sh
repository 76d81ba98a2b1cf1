cd /home/me/.local/lib/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-5370cec70f"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
rm -f LOCK.json
if [ -d releases/1.2.3-5370cec70f ] && [ "$(readlink current || true)" != releases/1.2.3-5370cec70f ]; then
  : > releases/1.2.3-5370cec70f/BAD
fi
