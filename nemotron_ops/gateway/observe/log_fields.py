"""What each field of an access log line means: the text of docs/reference/access-log.md. Pure."""

LOG_FIELDS: dict[str, str] = {
    "time": "Unix time in seconds at which the request ended, to the millisecond.",
    "id": "Id of the request, as in `X-Request-Id`.",
    "client": "IP address of the client.",
    "key": "Id of the API key; `anyone` where no keys are configured, empty without a valid key.",
    "method": "HTTP method.",
    "path": "Path of the route; of an unknown path the first 200 characters.",
    "model": "Name of the model that was asked for; empty where the request named none that exists.",
    "instance": "Last instance that had the request; empty if none.",
    "status": "HTTP status that was sent; 499 if the client disconnected before there was one.",
    "cause": (
        "Why the request did not end well: an [error code](api-errors.md), `client_gone` (the client disconnected) or "
        "`lost_in_thought` (reasoning without an answer). Empty for a good end."
    ),
    "tries": "Attempts at an instance: 1 for most requests, more after a failover, 0 if none was asked.",
    "queue_s": "Seconds in the queue, over all attempts.",
    "first_token_s": (
        "Seconds from the request's last byte to the first event of its stream; null if the answer was not streamed "
        "by llama-server, or did not begin."
    ),
    "duration_s": "Seconds from the request's last byte to the end of its answer.",
    "bytes_in": "Size of the request's body.",
    "bytes_out": "Bytes sent to the client for this request.",
    "prompt_tokens": "Prompt tokens; estimated where the client disconnected before llama-server reported them.",
    "completion_tokens": "Generated tokens.",
    "cached_tokens": "Part of `prompt_tokens` that was in llama-server's cache already.",
}
