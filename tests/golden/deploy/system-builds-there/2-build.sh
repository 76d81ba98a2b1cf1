/opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops doctor || true
runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops build --cuda
