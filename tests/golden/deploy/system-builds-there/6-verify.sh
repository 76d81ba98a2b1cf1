before=$(systemctl show -P NRestarts nemotron-ops.service)
sleep 3
end=$(( $(date +%s) + 3600 ))
while :; do
  code=0; /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops status --json | /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/python -m nemotron_ops.deploy.settled || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || { /opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/nemotron-ops status; exit 1; }
  sleep 1
done
/opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/python -m nemotron_ops.deploy.canary 8001 127.0.0.1
[ "$(systemctl show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl show -P NRestarts nemotron-ops.service)" = "$before" ]
