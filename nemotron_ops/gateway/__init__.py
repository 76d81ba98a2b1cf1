"""One endpoint for OpenAI and Anthropic clients in front of the instances: a process of its own.

Each file and floor uses only those below it; `observe.metrics` is below all of them:

    __main__      `python -m nemotron_ops.gateway`: runs the gateway as a process of its own
    server        holds what all clients share, from the first connection to the drain
    openapi       describes requests, responses and errors for `/openapi.json`
    exchange      runs one request, from its last byte to the end of its response
    shared        what all requests share: pool, metrics, memory, outbox
    observe       counts, logs and traces requests
    record        what is known of one request
    ollama        speaks Ollama's API in front of the engines' chat API
    responses     speaks OpenAI's responses API in front of the engines' chat API
    batches       many requests in one file, answered while nothing else waits
    queue         decides which instance serves a request, and when
    continuation  continues a stream that was cut
    client        the client's side of the wire: connections, heads, bodies
    keys          API keys: scopes, quotas, usage
    request       prepares a client's body for llama-server
    upstream      sends one request to one llama-server
    warnings_log  writes warnings for the operator
    options       every option of the gateway process, from flags or a JSON file
    loop          additions to the event loop
    toolcalls     checks and heals the tool calls of answers
    streams       passes an engine's events on to the client
    api           the APIs that clients speak: routes, model names, errors
"""
