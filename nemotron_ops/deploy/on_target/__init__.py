"""Programs that run on the target: `python -m nemotron_ops.deploy.on_target.NAME`.

Each file uses only those below it:

    canary   one real question to an endpoint on this machine: `python -m nemotron_ops.deploy.on_target.canary PORT
             [HOST]`
    settled  whether a service has come to rest as its release wants it: `… status --json | python -m …deploy.settled`
"""
