runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops doctor
