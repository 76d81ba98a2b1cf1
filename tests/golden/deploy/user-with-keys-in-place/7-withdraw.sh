cd /home/me/.local/lib/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-96b17209fd"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
rm -f LOCK.json
if [ -d releases/1.2.3-96b17209fd ] && [ "$(readlink current || true)" != releases/1.2.3-96b17209fd ]; then
  : > releases/1.2.3-96b17209fd/BAD
fi
