"""The client's side of the wire: its connection, heads and bodies.

Each file uses only those below it:

    connection  one client's connection: requests in, answers out, nothing believed
    reader      bytes of a client's connection into whole requests, within bounds
    heads       HTTP heads: what a client may send, what goes upstream, what comes back
"""
