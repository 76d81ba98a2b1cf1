/opt/nemotron-ops/releases/1.2.3-056c1ce200/venv/bin/python -m nemotron_ops.deploy.canary 8001 127.0.0.1
before=$(systemctl show -P NRestarts nemotron-ops.service)
sleep 3
[ "$(systemctl show -P ActiveState nemotron-ops.service)" = active ]
[ "$(systemctl show -P NRestarts nemotron-ops.service)" = "$before" ]
