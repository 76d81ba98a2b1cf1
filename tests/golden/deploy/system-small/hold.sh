mkdir -p /opt/nemotron-ops
printf '%s\n' '{"who": "ann@desk", "since": "2026-01-01T00:00:00+00:00", "why": "benchmarks"}' > /opt/nemotron-ops/HOLD.json
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "lock", "why": "benchmarks"}' >> /opt/nemotron-ops/deploy.log
