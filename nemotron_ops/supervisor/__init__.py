"""Keeps llama-servers running, and the gateway in front of them.

Each file uses only those below it:

    run         `supervise`: the supervisor from its lock to its exit code
    control     the control socket: its protocol, its verbs, its client
    supervisor  starts journal, control socket, gateway and fleet, and stops them in the right order
    fleet       all instances together: which run, and how one set of them replaces another
    companion   keeps a child process running that serves a socket of the supervisor: the gateway
    on_demand   keeps a unix socket open, and runs a process for it while it is used: the agent
    probe       probes a companion: any reply on its socket proves that its event loop runs
    instance    one llama-server: its lifecycle and what watches it
    watchdog    when the supervisor's own tasks count as alive: the condition for the service manager's heartbeat
    records     records of processes, by which the next supervisor finds its children
    wishes      what is to be served, as the supervisor's surroundings keep it
    journal     events in order: a ring for people and programs, and a log of JSON lines
    spec        what the supervisor runs: one frozen spec per instance, complete and serialisable
    snapshot    what the supervisor tells the gateway: an immutable picture of all instances

`control.server` and `control.client` know no verb; `supervisor` uses the server, `control.verbs` the supervisor.
"""
