"""What the gateway adds to the event loop.

Each file uses only those below it:

    eager_task  coroutines that go on in the moment in which what they wait for is there
    outbox      what is written to clients in one round of the loop, written together at its end
    read_turns  turns in reading from engines that have much to say
"""
