"""Keeps llama-servers running, and the gateway in front of them.

Each file uses only those below it:

    control    the control socket: its protocol, its verbs, its client
    run        `supervise`: the supervisor from its lock to its exit code
    fleet      all instances together: which run, and how one set of them replaces another
    instance   one llama-server: its lifecycle and what watches it
    watchdog   whether the supervisor's own tasks come round: what the heartbeat to the service manager depends on
    companion  the gateway's process: started on a socket that is already open, and started again when it dies
    journal    what happened, in order: a ring of events for people and programs, and a log of JSON lines
    records    what is written down so that the next supervisor finds its children
    spec       what the supervisor is asked to run: one frozen spec per instance, complete and serialisable
    snapshot   what the supervisor tells the gateway: an immutable picture of all instances
"""
