/home/me/.local/lib/nemotron-ops/releases/1.2.3-5370cec70f/venv/bin/python -m nemotron_ops.deploy.canary 8001 127.0.0.1
before=$(systemctl --user show -P NRestarts nemotron-ops.service)
sleep 3
[ "$(systemctl --user show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl --user show -P NRestarts nemotron-ops.service)" = "$before" ]
