"""Runs one request, from its last byte to the end of its response.

Each file uses only those below it:

    exchange      runs one request: prepare, wait for a slot, attempt, respond or retry
    hosted_tools  hands a request that asks for hosted tools to the agent
    keepalive     sends SSE keep-alive comments; the client's first-token timeout
    own_routes    answers the routes that need no llama-server: health, models, metrics, OpenAPI
    batch_routes  answers the routes of files and batches
    chat_control  passes a control request on to a running chat stream
    engine_pages  serves an instance's own pages to the admin scope
    intake        reads a request for a model: the body to send, and its place in the queue
    ollama_intake  reads a request to Ollama's API, and answers its pages
    responses_intake  reads a request to the responses API, and serves the responses that are kept
    culprit       decides whether an engine died of a request, or got stuck on it
    failover      decides what follows a failed attempt
    respond       sends responses: whole, folded, the begin and end of a stream, errors
    forced_call   begins an answer with the call that its client requires
    ask_whole     asks one instance for a whole response, outside the queue
    model_access  decides which models and instances a key may use
"""
