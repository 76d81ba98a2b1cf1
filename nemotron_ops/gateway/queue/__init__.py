"""Which instance serves a request, and when.

Each file uses only those below it:

    pool         the instances that can be given requests, and the requests that wait for one
    admission    who goes next, and to which instance: a fair, bounded queue per model in front of real slots
    affinity     which instance has a conversation in its memory already
    reservation  how many tokens of a shared KV cache a request will take
    snapshots    the gateway's end of the control socket: snapshots in, counts of requests in flight out
"""
