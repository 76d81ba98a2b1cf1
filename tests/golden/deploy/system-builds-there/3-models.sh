if [ -f /etc/nemotron-ops/credentials/hub-token ]; then HF_TOKEN=$(cat /etc/nemotron-ops/credentials/hub-token); export HF_TOKEN; fi
mkdir -p /etc/nemotron-ops/recipes; cp -n /opt/nemotron-ops/releases/1.2.3-056c1ce200/recipes/*.toml /etc/nemotron-ops/recipes/ 2>/dev/null || true
runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops fetch 30b
runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops fetch mine
