cd /opt/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-056c1ce200"}' >> /opt/nemotron-ops/deploy.log
rm -f LOCK.json
if [ -d releases/1.2.3-056c1ce200 ] && [ "$(readlink current || true)" != releases/1.2.3-056c1ce200 ]; then
  : > releases/1.2.3-056c1ce200/BAD
fi
