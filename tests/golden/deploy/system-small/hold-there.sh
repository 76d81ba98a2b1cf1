cat /opt/nemotron-ops/HOLD.json 2>/dev/null || true
