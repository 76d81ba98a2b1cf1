"""The shell scripts of a deploy, in order. Pure.

Each file uses only those below it:

    plan           the plan of a deploy: which steps, in which order
    rollback       going back to an earlier release: switch, see that it is good, or return to where one was
    switch         the steps of a deploy from the switch on: activate, and what ends it well or badly
    before_switch  the steps of a deploy up to the switch (the rest: `ending`), as shell scripts for the target
    candidate      a release before the switch: a folder of its own on the target, in which it knows its recipes and
                   its build
    release        what is deployed: the request, the release it comes to, and the steps of a plan
    saved_state    what was on a target before its first deploy: kept before the switch, put back if the deploy fails
    scripts        small scripts for a target: locks, links, the audit log, running a command
    facts          what is known of a target: the script that asks, and the answer
"""
