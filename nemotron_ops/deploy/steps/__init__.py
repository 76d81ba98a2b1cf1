"""The shell scripts of a deploy, in order. Pure.

Each file uses only those below it:

    plan             the plan of a deploy: which steps, in which order
    rollback         the steps of a rollback: switch to an earlier release, verify it, return if it fails
    switch           the steps of a deploy from the switch on: activate, finish, and what a failure calls for
    before_switch    the steps of a deploy up to the switch
    release_scripts  the two scripts that stay in a release: activate.sh and verify.sh
    context          what the scripts of one deploy to one target are made from
    candidate        a release before the switch: its own home folder on the target, with its recipes and its build
    saved_state      the state of a target before its first deploy: saved, and restored if the deploy fails
    release          what is deployed: the request, the release made from it, and the steps of a plan
    scripts          small scripts for a target: locks, links, the audit log, running a command
    probe            asks a target for its facts: the script that prints them, and the parser of its output
    facts            the facts of a target, where its releases live, and whether a release can run there
"""
