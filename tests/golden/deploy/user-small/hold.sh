mkdir -p /home/me/.local/lib/nemotron-ops
printf '%s\n' '{"who": "ann@desk", "since": "2026-01-01T00:00:00+00:00", "why": "benchmarks"}' > /home/me/.local/lib/nemotron-ops/HOLD.json
printf '%s\n' '{"time": "2026-01-01T00:00:00+00:00", "who": "ann@desk", "event": "lock", "why": "benchmarks"}' >> /home/me/.local/lib/nemotron-ops/deploy.log
