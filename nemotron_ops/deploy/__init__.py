"""The same program on other machines, over plain SSH: releases, balancer, manifests.

Each file uses only those below it:

    remote      runs the steps on targets: connections, sessions, rollouts over several of them
    artifacts   what is sent to a target: the bundle with our wheel, builds and models, and whether they fit there
    steps       the shell scripts of a deploy, in order
    on_target   programs that run on the target: `python -m nemotron_ops.deploy.on_target.NAME`
    balancer    HAProxy in front of several targets
    kubernetes  manifests for Kubernetes clusters
"""
