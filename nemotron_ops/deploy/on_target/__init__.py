"""Programs that run on the target: `python -m nemotron_ops.deploy.on_target.NAME`.

Neither uses the other:

    canary   asks an endpoint on this machine one question
    settled  checks that a service has settled as its release asks
"""
