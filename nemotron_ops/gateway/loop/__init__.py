"""What the gateway adds to the event loop.

Each file uses only those below it:

    eager_task  runs a coroutine step synchronously when its future completes
    outbox      batches the writes to clients of one loop iteration
    read_turns  round-robin reads, so that one fast upstream cannot starve the others
"""
