exec /opt/nemotron-ops/current/venv/bin/nemotron-ops builds list
