before=$(systemctl --user show -P NRestarts nemotron-ops.service)
sleep 3
end=$(( $(date +%s) + 3600 ))
while :; do
  code=0; /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops status --json | /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/python -m nemotron_ops.deploy.settled cpu-1234 || code=$?
  [ "$code" != 0 ] || break
  # on the way: what changed is loading beside the old
  [ "$code" = 2 ] && [ "$(date +%s)" -lt "$end" ] || { /home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/nemotron-ops status; exit 1; }
  sleep 1
done
/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/python -m nemotron_ops.deploy.canary 8001 127.0.0.1
[ "$(systemctl --user show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl --user show -P NRestarts nemotron-ops.service)" = "$before" ]
