systemctl --user stop nemotron-ops-candidate.service 2>/dev/null || true
systemctl --user reset-failed nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /home/me/.local/lib/nemotron-ops/candidate; mkdir -p /home/me/.local/lib/nemotron-ops/candidate/data /home/me/.local/lib/nemotron-ops/candidate/config
mkdir -p /home/me/.local/lib/nemotron-ops/candidate/data/builds
ln -s /home/me/.local/share/nemotron-ops/builds/cpu-1234 /home/me/.local/lib/nemotron-ops/candidate/data/builds/cpu-1234
printf '%s' '{"current": "cpu-1234", "previous": []}' > /home/me/.local/lib/nemotron-ops/candidate/data/builds/current.json
ln -s /home/me/.local/share/nemotron-ops/models /home/me/.local/lib/nemotron-ops/candidate/data/models
cp -r /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/recipes /home/me/.local/lib/nemotron-ops/candidate/config/recipes
cp "$HOME/.config/nemotron-ops"/settings.toml /home/me/.local/lib/nemotron-ops/candidate/config 2>/dev/null || true
port=$(/usr/bin/python3.11 -I -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
started=$(date +%s)
code=0
systemd-run --user --quiet --unit=nemotron-ops-candidate --property=Type=notify --property=KillMode=mixed \
  --property=TimeoutStartSec=300 --setenv=NEMOTRON_OPS_HOME=/home/me/.local/lib/nemotron-ops/candidate --setenv=NEMOTRON_OPS_SYSTEM= \
  /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/venv/bin/nemotron-ops serve 30b --host 127.0.0.1 --port "$port" --no-build --offline || code=$?
if [ "$code" = 0 ]; then
  /home/me/.local/lib/nemotron-ops/releases/1.2.3-7b1a537594/venv/bin/python -P -m nemotron_ops.deploy.on_target.canary "$port" || code=$?
else
  status=$(systemctl --user show -P ExecMainStatus nemotron-ops-candidate.service)
  [ "$status" = 8 ] && code=8
fi
[ "$code" = 0 ] || journalctl --user --no-pager --output=cat --lines=30 --since="@$started" \
  --user-unit=nemotron-ops-candidate.service
systemctl --user stop nemotron-ops-candidate.service 2>/dev/null || true
systemctl --user reset-failed nemotron-ops-candidate.service 2>/dev/null || true
rm -rf /home/me/.local/lib/nemotron-ops/candidate
exit "$code"
