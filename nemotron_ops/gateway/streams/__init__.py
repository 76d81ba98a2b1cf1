"""Server-sent events of an engine, on their way to the client.

Each file uses only those below it:

    fold   a stream of events folded into the one answer that the client asked for
    relay  a stream of events on its way from llama-server to a client
    sse    Server-sent events as they pass by: where one ends, when the answer is complete, what it cost
"""
