runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops /opt/nemotron-ops/releases/1.2.3-ea8b0c6999/venv/bin/nemotron-ops build --cuda
