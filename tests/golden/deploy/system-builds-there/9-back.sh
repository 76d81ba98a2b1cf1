cd /opt/nemotron-ops
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-056c1ce200"}' >> /opt/nemotron-ops/deploy.log
rm -f LOCK.json
: > releases/1.2.3-056c1ce200/BAD; rm -f releases/1.2.3-056c1ce200/GOOD
old=$(readlink previous || true)
if [ -n "$old" ] && [ "$old" != releases/1.2.3-056c1ce200 ] && [ -x "$old/activate.sh" ]; then
  exec "$old/activate.sh"
fi
/opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops service uninstall --system || true
rm -f current
