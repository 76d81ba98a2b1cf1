"""The three neighbours of the page: nothing else is asked.

Each file uses only those below it:

    work        children of our own command line, with their progress: search, fetch, plan
    supervisor  the control socket: status, logs, events, verbs
    gateway     the gateway, as a client with a key of its own
    streamed    a streamed answer over a connection of its own, read in gulps
    order       which panes of a comparison are asked at once, by the memory plan
    parameters  what holds where nobody sets a parameter, each value with its source
    beat        when streams are read, and when what is new is shown
    counts      a gateway's metrics: tokens by instance, waiting requests by model
    deltas      a gateway's events as parts of an answer: thinking, text, calls, usage, end
"""
