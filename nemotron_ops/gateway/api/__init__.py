"""The APIs that clients speak: routes, names of models, errors.

Each file uses only those below it:

    catalog       indexes a snapshot: names to models, models to instances; which instances may serve
    listing       the bodies of `/v1/models` and `/health`
    adapters      LoRA adapters as models of their own: `30b:support`
    aliases       a recipe's further names for its model, which may be patterns
    errors        errors of the gateway, in the shape that clients of each API read
    context_overflow  a prompt that is larger than the context, in the words of each API
    client_faults  llama-server's 500s that the request itself causes
    error_codes   every error code: its statuses, when it is sent, and what to do about it
    content_types  content types of the gateway's responses
    routes        the gateway's paths: the scope that each requires, its kind, and the API of its errors
    header_bytes  bytes that are safe to copy from a client into an HTTP head
"""
