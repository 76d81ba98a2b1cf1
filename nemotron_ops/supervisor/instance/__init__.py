"""One llama-server: its lifecycle and what watches it.

Each file uses only those below it:

    diagram     the lifecycle table as a picture and as a page, for the documentation
    keeper      owns one instance: the only writer of its state, and the only one that starts and signals its process
    inbox       the inbox of an owner: messages in order, and a limit on each wait
    context     what all keepers share
    launch      starts one llama-server, and removes what an ended one leaves behind
    autopsy     waits for the end of a llama-server and finds the cause of death
    notes       writes the change of an instance's state into the journal
    watchers    watches one instance in one state: loading, health, draining
    slot_files  saves slots before a requested restart and restores them after it
    watched     what a watcher reads of its instance, and what it reports to the owner
    liveness    when a ready instance counts as stuck: liveness is progress, not an open port
    loading     how far a load is, and whether it still moves
    shrink      halves a context that was not asked for, after a death for lack of memory
    state       the lifecycle: a table of states and events, and `step`, which walks it
"""
