cat /home/me/.local/lib/nemotron-ops/HOLD.json 2>/dev/null || true
