cd /home/me/.local/lib/nemotron-ops
systemctl --user stop nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /home/me/.local/share/nemotron-ops/builds/.sent /home/me/.local/lib/nemotron-ops/candidate
[ -f /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE ] || rm -rf /home/me/.local/lib/nemotron-ops/programs/aaaaaaaaaaaaaaaa
[ -f releases/1.2.3-f05afeb3a3/RELEASE.json ] || rm -rf releases/1.2.3-f05afeb3a3
[ "$(df -Pk . | tail -n1 | awk '{print $4}')" -gt 51200 ] || rm -rf incoming
rm -f LOCK.json
if [ -d releases/1.2.3-f05afeb3a3 ] && [ "$(readlink current || true)" != releases/1.2.3-f05afeb3a3 ]; then
  : > releases/1.2.3-f05afeb3a3/BAD || true
fi
{ printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-f05afeb3a3"}' >> /home/me/.local/lib/nemotron-ops/deploy.log; } 2>/dev/null || echo 'cannot write the audit log'
