token=/opt/nemotron-ops/.hub-token; trap 'rm -f "$token"' EXIT
rm -rf /opt/nemotron-ops/candidate; mkdir -p /opt/nemotron-ops/candidate/data /opt/nemotron-ops/candidate/config
ln -s /var/lib/nemotron-ops/builds /opt/nemotron-ops/candidate/data/builds
ln -s /var/lib/nemotron-ops/models /opt/nemotron-ops/candidate/data/models
cp -r /opt/nemotron-ops/releases/1.2.3-1e026844f2/recipes /opt/nemotron-ops/candidate/config/recipes
cp /etc/nemotron-ops/settings.toml /opt/nemotron-ops/candidate/config 2>/dev/null || true
chown -R nemotron:nemotron /opt/nemotron-ops/candidate
[ ! -f /etc/nemotron-ops/credentials/hub-token ] || install -o nemotron -m 400 /etc/nemotron-ops/credentials/hub-token "$token"
runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM= HOME=/var/lib/nemotron-ops NEMOTRON_OPS_HOME=/opt/nemotron-ops/candidate HF_TOKEN_PATH="$token" /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops fetch 30b
runuser -u nemotron -- env NEMOTRON_OPS_SYSTEM= HOME=/var/lib/nemotron-ops NEMOTRON_OPS_HOME=/opt/nemotron-ops/candidate HF_TOKEN_PATH="$token" /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops fetch mine
rm -rf /opt/nemotron-ops/candidate
