"""All instances together: which run, and how one set of them replaces another.

Each file uses only those below it:

    rollout    replaces running instances without an outage: reload and rollback
    canary     tests a new process with a few prompts before it gets traffic
    changes    the difference of two configurations: instances to keep, add, remove and replace
    instances  decides which instances are wanted: start order, memory budget, idle time
    seats      which instances may start now: start order and one memory budget
"""
