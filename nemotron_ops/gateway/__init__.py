"""One endpoint for OpenAI and Anthropic clients in front of the instances: a process of its own.

Each file uses only those below it:

    __main__      `python -m nemotron_ops.gateway`: the gateway as a process of its own
    openapi       `/openapi.json`: requests, answers and errors, described from the code
    server        the gateway: what all clients share, from the first connection to the drain
    exchange      one request from its first byte to its last
    client        the client's side of the wire: its connection, heads and bodies
    continuation  a stream that was cut goes on at another instance, or ends in the open
    keys          who may use what, and how much of it
    observe       metrics, access log and traces
    warnings_log  what the gateway says to its operator
    options       what the gateway can be told at its start: one frozen dataclass, from flags or a JSON file
    queue         which instance serves a request, and when
    request       what of a client's body goes upstream, and what routing needs to know of it
    upstream      one llama-server as the gateway sees it
    loop          what the gateway adds to the event loop
    streams       Server-sent events of an engine, on their way to the client
    api           the APIs that clients speak: routes, names of models, errors
"""
