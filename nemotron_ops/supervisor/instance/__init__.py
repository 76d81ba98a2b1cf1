"""One llama-server: its lifecycle and what watches it.

Each file uses only those below it:

    diagram     the lifecycle table as a picture and as a page, for the documentation
    liveness    when a ready instance counts as stuck: liveness is progress, not an open port
    loading     how far a load is, and whether it still moves
    shrink      less context after a death for lack of memory, where nobody asked for that context
    slot_files  warm restarts: slots saved before a planned restart and restored after it
    keeper      the owner of one instance: the only one who starts, signals and forgets its process
    watchers    what is watched in each state: loading, health, draining
    state       the lifecycle of one instance: a table of states and events, and `step`, which walks it
"""
