"""All instances together: which run, and how one set of them replaces another.

Each file uses only those below it:

    rollout    changing what runs without an outage: reload and rollback
    canary     a new process answers a few prompts before it gets traffic
    changes    what a new configuration changes: which instances stay, come, go, or are replaced
    instances  all instances together: starting, making room, ageing, changing
    seats      who may start now: start order and one memory budget
"""
