cd /opt/nemotron-ops
systemctl stop nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /var/lib/nemotron-ops/builds/.sent /opt/nemotron-ops/candidate
[ -f /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa/COMPLETE ] || rm -rf /opt/nemotron-ops/programs/aaaaaaaaaaaaaaaa
[ -f releases/1.2.3-1e026844f2/RELEASE.json ] || rm -rf releases/1.2.3-1e026844f2
[ "$(df -Pk . | tail -n1 | awk '{print $4}')" -gt 51200 ] || rm -rf incoming
rm -f LOCK.json
if [ -d releases/1.2.3-1e026844f2 ] && [ "$(readlink current || true)" != releases/1.2.3-1e026844f2 ]; then
  : > releases/1.2.3-1e026844f2/BAD || true
fi
{ printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "failed", "release": "1.2.3-1e026844f2"}' >> /opt/nemotron-ops/deploy.log; } 2>/dev/null || echo 'cannot write the audit log'
