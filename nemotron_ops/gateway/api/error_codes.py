"""Every error code of the gateway: its statuses, when it is sent, and what to do about it. Pure.

A `Refusal` carries one of these codes. A test reads the syntax tree of the gateway and compares each literal code and
status with this table; `docs/reference/api-errors.md` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ErrorCode:
    """One code. `statuses` is empty where the status is the one that llama-server sent."""

    statuses: tuple[int, ...]
    when: str
    hint: str


def _code(*statuses: int, when: str, hint: str) -> ErrorCode:
    return ErrorCode(statuses=statuses, when=when, hint=hint)


RETRY = "Wait `Retry-After` seconds, then retry"
STATUS = "`nemotron-ops status` shows the cause and the next step"

ERROR_CODES: dict[str, ErrorCode] = {
    "agent_lost": _code(
        502, when="The process that runs hosted tools cannot be reached, or has ended.", hint="Retry the request."
    ),
    "adapter_not_honoured": _code(
        400,
        when="The model is an adapter (`30b:support`), and llama-server applies none on this route: it would answer as "
        "the base.",
        hint="Use `/v1/chat/completions` or `/v1/responses`.",
    ),
    "bad_request": _code(
        400,
        when="The HTTP request is malformed or ambiguous: unreadable path, repeated header, missing Host, two lengths.",
        hint="Correct the client's HTTP.",
    ),
    "batch_not_found": _code(
        404, when="No batch of that id was made with this key.", hint="`/v1/batches` lists those that there are."
    ),
    "batches_disk": _code(
        503, when="The folder of files and batches cannot be read or written.", hint="Read the message; make room."
    ),
    "batches_off": _code(
        501, when="The gateway was started without a folder for files and batches.", hint="Set `--batches-folder`."
    ),
    "body_too_large": _code(
        413, when="The body exceeds the limit for its path.", hint="Send less, or raise `--max-body-mib`."
    ),
    "concurrent_requests": _code(
        429, when="The key has as many requests in flight as it may.", hint=f"{RETRY}, or raise the key's limit."
    ),
    "content_encoding": _code(415, when="The body is compressed.", hint="Send it uncompressed."),
    "content_type": _code(
        415,
        when="An upload is not `multipart/form-data` with a boundary.",
        hint="Let the HTTP library build the form.",
    ),
    "context_length_exceeded": _code(
        400,
        when="The prompt has more tokens than the context, or more text than any context of the model could hold.",
        hint="Compact the conversation; `/v1/models` has the context's size (`n_ctx`).",
    ),
    "empty_prompt": _code(
        400,
        when="Several choices (`n`) are asked for an empty prompt; llama-server would never end such a request.",
        hint="Send a prompt, or leave out `n`.",
    ),
    "engine_error": _code(
        when="llama-server failed with a 5xx status, ended its stream with an error, or returned nothing (500).",
        hint="Read the message; `nemotron-ops logs` has llama-server's own log.",
    ),
    "engine_lost": _code(
        502,
        when="llama-server died or broke its connection, and no other instance could answer or continue the stream.",
        hint="Retry; `nemotron-ops logs` says why llama-server died.",
    ),
    "engine_refused": _code(
        when="llama-server rejected the request with a 4xx status.", hint="Read the message; correct the request."
    ),
    "engine_silent": _code(
        504,
        when="llama-server sent nothing for longer than any prompt of this size takes; its slot was freed.",
        hint="Change the request: the same one is refused for a while. `nemotron-ops logs` may say what it did.",
    ),
    "file_not_found": _code(
        404, when="No file of that id was uploaded with this key.", hint="`/v1/files` lists those that there are."
    ),
    "files_full": _code(
        413,
        when="The files of batches would take more room than they may.",
        hint="Delete some, or raise `--batches-mib`.",
    ),
    "first_token_timeout": _code(
        504,
        when="No token arrived within the client's `X-Request-Timeout`.",
        hint="Allow more time (`X-Request-Timeout`), or serve more replicas.",
    ),
    "head_too_large": _code(431, when="The request's headers are too many or too long.", hint="Send fewer headers."),
    "host_not_allowed": _code(
        403,
        when="Without keys: the Host header names another machine.",
        hint="Allow it with `--allowed-host`, or configure keys.",
    ),
    "http_version": _code(505, when="The request is neither HTTP/1.1 nor HTTP/1.0.", hint="Use HTTP/1.1."),
    "instance_not_found": _code(
        404, when="The instance that an admin page was asked of does not exist.", hint="Use a name from the message."
    ),
    "internal": _code(500, when="The gateway has a bug.", hint="Report it, with the traceback in the gateway's log."),
    "invalid_api_key": _code(401, when="No API key was sent, or an unknown one.", hint="Send a valid key."),
    "invalid_field": _code(
        400, when="A field of the request has the wrong type or is out of range.", hint="Correct the field."
    ),
    "invalid_form": _code(400, when="A form body cannot be parsed.", hint="Let the HTTP library build the form."),
    "invalid_input": _code(
        400, when="A response's `input` has an item or part that is not known.", hint="Send it in another form."
    ),
    "invalid_json": _code(400, when="The body is not a JSON object that can be parsed.", hint="Correct the body."),
    "key_expired": _code(401, when="The API key has expired.", hint="Use another key."),
    "key_revoked": _code(
        401,
        when="The API key has been revoked, possibly while its request was running.",
        hint="Use another key.",
    ),
    "kills_engine": _code(
        400,
        when="An engine died of these very bytes, or got stuck on them, within the last ten minutes.",
        hint="Change the request; `nemotron-ops logs` says what it did to llama-server.",
    ),
    "method": _code(501, when="The HTTP method is not implemented.", hint="Use one of the documented routes."),
    "method_not_allowed": _code(
        405, when="The path exists, but not with this method.", hint="Use a method from the `Allow` header."
    ),
    "limit_exceeded": _code(
        400,
        when="A field has more of something than llama-server can take: grammar, schema, tools, samplers, messages.",
        hint="Send less; [fields](fields.md) has the limits and their reasons.",
    ),
    "model_failed": _code(503, when="All instances of the model have failed.", hint=f"{STATUS}."),
    "model_not_allowed": _code(
        403, when="The API key may not use this model.", hint="Use another key or another model."
    ),
    "model_not_found": _code(
        404, when="No model has the name in `model`.", hint="Use one of the names in the message."
    ),
    "model_stopped": _code(503, when="The model was stopped by hand.", hint="`nemotron-ops start NAME`."),
    "no_supervisor": _code(
        503,
        when="The gateway has just started and has no model list from the supervisor yet.",
        hint=f"{RETRY}; {STATUS}.",
    ),
    "not_found": _code(404, when="The gateway has no such path.", hint="Use one of the documented routes."),
    "origin_not_allowed": _code(
        403,
        when="A web page of another origin made a browser send the request.",
        hint="Allow it with `--allowed-origin`.",
    ),
    "out_of_descriptors": _code(
        503,
        when="The gateway has as many files and connections open as the system lets it; the engine is not at fault.",
        hint=f"{RETRY}, or raise the hard limit on open files (`ulimit -Hn`, `LimitNOFILE=` in a unit).",
    ),
    "previous_response_not_found": _code(
        400,
        when="`previous_response_id` names a response that this key has not stored, or that made room for newer ones.",
        hint="Send the whole conversation as `input`.",
    ),
    "queue_full": _code(
        503,
        when="The model's queue is full (`queue_length`).",
        hint=f"{RETRY}, or serve more replicas.",
    ),
    "queue_timeout": _code(
        503,
        when="No slot became free within `queue_wait_s` or the client's `X-Request-Timeout`.",
        hint=f"{RETRY}, or serve more replicas.",
    ),
    "receiving_full": _code(
        503,
        when="The bodies that are being received fill the memory set aside for them.",
        hint=f"{RETRY}, or raise `--max-receiving-mib`.",
    ),
    "remote_media": _code(
        400,
        when="A message refers to media by address; llama-server would fetch it.",
        hint="Send the media inline: a `data:` URL or base64.",
    ),
    "request_timeout": _code(408, when="The request arrived too slowly.", hint="Retry on a faster connection."),
    "requests_per_minute": _code(
        429, when="The key has used its requests of this minute.", hint=f"{RETRY}, or raise the key's limit."
    ),
    "response_not_found": _code(
        404, when="The key has no stored response of this id.", hint="Store it (`store`), or use another id."
    ),
    "scope": _code(
        403,
        when="The API key lacks the scope that the path needs.",
        hint="Use a key that has the scope in the message.",
    ),
    "sent_ahead": _code(
        400,
        when="The client pipelines more on one connection than the gateway buffers.",
        hint="Wait for answers before sending more.",
    ),
    "stopping": _code(503, when="The gateway is shutting down.", hint=f"{RETRY}."),
    "tokens_per_day": _code(
        429, when="The key has used its tokens of this day.", hint=f"{RETRY}, or raise the key's limit."
    ),
    "tokens_per_minute": _code(
        429, when="The key has used its tokens of this minute.", hint=f"{RETRY}, or raise the key's limit."
    ),
    "tools_not_enabled": _code(
        400, when="A tool would have to run at the server.", hint="Offer function tools, and run them in the client."
    ),
    "too_many_connections": _code(
        503, when="The gateway has as many connections as it may.", hint=f"{RETRY}, or raise `--max-connections`."
    ),
    "too_many_engine_deaths": _code(
        429,
        when="Engines were lost on three requests of this key within ten minutes.",
        hint=f"{RETRY}, without the requests that cost engines; `nemotron-ops logs` says what they did.",
    ),
    "unsupported_field": _code(400, when="A field asks for something that is not done here.", hint="Read the message."),
    "uri_too_long": _code(414, when="The request's path is too long.", hint="Send parameters in the body."),
    "use_the_command_line": _code(
        403, when="A path of Ollama's API would change what is served.", hint="Run the command that the message names."
    ),
}
