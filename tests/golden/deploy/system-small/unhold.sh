[ -e /opt/nemotron-ops/HOLD.json ] || exit 0
rm -f /opt/nemotron-ops/HOLD.json
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "unlock"}' >> /opt/nemotron-ops/deploy.log
