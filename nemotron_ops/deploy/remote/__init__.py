"""Runs the steps on targets: connections, sessions, rollouts over several of them.

Each file uses only those below it:

    rollout  runs deploys and rollbacks: lock, steps, what follows from a failure
    fleet    runs one task for each target: the first one alone, then the rest, some at a time
    prepare  prepares a deploy to one target: reads its facts, packs what is sent, makes the plan
    session  holds a target's lock, and runs steps one after another through one ssh channel
    ssh      OpenSSH's client: runs one command, sends one file
    targets  `targets.toml`: groups of targets and what they serve
"""
