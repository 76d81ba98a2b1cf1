exec /home/me/.local/lib/nemotron-ops/current/venv/bin/nemotron-ops builds list
