systemctl stop nemotron-ops-candidate.service 2>/dev/null || true
systemctl reset-failed nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /opt/nemotron-ops/candidate; mkdir -p /opt/nemotron-ops/candidate/data /opt/nemotron-ops/candidate/config
ln -s /var/lib/nemotron-ops/builds /opt/nemotron-ops/candidate/data/builds
ln -s /var/lib/nemotron-ops/models /opt/nemotron-ops/candidate/data/models
cp -r /opt/nemotron-ops/releases/1.2.3-1e026844f2/recipes /opt/nemotron-ops/candidate/config/recipes
cp /etc/nemotron-ops/settings.toml /opt/nemotron-ops/candidate/config 2>/dev/null || true
chown -R nemotron:nemotron /opt/nemotron-ops/candidate
port=$(/usr/bin/python3.11 -I -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
started=$(date +%s)
code=0
systemd-run --quiet --unit=nemotron-ops-candidate --property=Type=notify --property=KillMode=mixed --property=User=nemotron \
  --property=TimeoutStartSec=300 --setenv=NEMOTRON_OPS_HOME=/opt/nemotron-ops/candidate --setenv=NEMOTRON_OPS_SYSTEM= \
  /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/nemotron-ops serve 30b mine --ctx-size 8192 --host 127.0.0.1 --port "$port" --no-build --offline --profile guide || code=$?
if [ "$code" = 0 ]; then
  /opt/nemotron-ops/releases/1.2.3-1e026844f2/venv/bin/python -P -m nemotron_ops.deploy.on_target.canary "$port" || code=$?
else
  status=$(systemctl show -P ExecMainStatus nemotron-ops-candidate.service)
  [ "$status" = 8 ] && code=8
fi
[ "$code" = 0 ] || journalctl --no-pager --output=cat --lines=30 --since="@$started" \
  --unit=nemotron-ops-candidate.service
systemctl stop nemotron-ops-candidate.service 2>/dev/null || true
systemctl reset-failed nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /opt/nemotron-ops/candidate
exit "$code"
