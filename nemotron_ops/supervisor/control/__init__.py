"""The control socket: its protocol, its verbs, its client.

Each file uses only those below it:

    client  asking the running supervisor: one line of JSON there, one or more back
    verbs   what the control socket can do, verb by verb
    server  the control socket: what the command line and the gateway may ask of a running supervisor
"""
