"""Runs the steps on targets: connections, sessions, rollouts over several of them.

Each file uses only those below it:

    rollout  carries out deploys and rollbacks: lock, steps
    fleet    many targets: the first one alone, then the rest, some at a time
    prepare  what is to be deployed, and what it comes to on one target: looked at, packed and planned
    session  a target's lock, and the session that holds it: steps run one after another through one ssh channel
    ssh      openSSH's client: one command, one file (one long session: `session`)
    targets  `targets.toml`: groups of targets and what they serve
"""
