"""The control socket: its protocol, its verbs, its client.

Each file uses only those below it:

    client  sends requests to the running supervisor
    verbs   the verbs of the control socket
    server  serves the control socket: connections, followers, requests in flight
"""
