"""Server-sent events of an engine, on their way to the client.

Each file uses only those below it:

    fold   folds a stream of events into the whole answer that the client asked for
    relay  passes a stream of events from llama-server on to a client
    kept   keeps the events of a stream so that it can be continued elsewhere
    usage  reads the usage of an answer, in tokens, from events or whole answers
    sse    server-sent events as bytes: boundaries, ends of answers, errors, names
"""
