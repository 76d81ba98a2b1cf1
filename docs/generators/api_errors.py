"""The reference of the gateway's errors: their codes, statuses and shapes. Pure."""

from __future__ import annotations

import json

from nemotron_ops.gateway.api.error_codes import ERROR_CODES, ErrorCode
from nemotron_ops.gateway.api.errors import REASONS, Refusal, error_event, error_object, error_type
from nemotron_ops.gateway.api.routes import Api

EXAMPLE = Refusal(
    status=503,
    code="queue_full",
    message="3 requests are waiting for '30b' already",
    detail={"queue_position": 4, "estimated_wait_s": 2.5},
)
ABOUT = """\
# Errors of the API

Every error has an HTTP status and a JSON body in the shape of its path's API. Clients of OpenAI's APIs and of
llama-server's own paths get:

```json
{openai}
```

Clients of Anthropic's API get the same without the code (an error that precedes the path, such as an unreadable head,
has OpenAI's shape):

```json
{anthropic}
```

`queue_position` and `estimated_wait_s` come with `queue_full` and `queue_timeout`. 429 and most 502 and 503 have
`Retry-After` (seconds), 405 has `Allow`. All errors have `X-Request-Id`, by which the [access log](access-log.md) and
traces find the request. Errors of llama-server keep its status and message.

A stream that has begun ends in an error event, and the connection closes without the last chunk:

```
{event}
```

## Codes
"""


def page() -> str:
    """The shapes, one row per code, and one per status."""
    shapes = ABOUT.format(
        openai=_json(Api.CHAT), anthropic=_json(Api.MESSAGES), event=error_event(Api.CHAT, EXAMPLE).decode().strip()
    )
    codes = [f"| `{c}` | {_statuses(e)} | {e.when} | {e.hint} |" for c, e in sorted(ERROR_CODES.items())]
    used = sorted({s for e in ERROR_CODES.values() for s in e.statuses})
    statuses = [
        f"| {s} {REASONS[s]} | `{error_type(Api.CHAT, s)}` | `{error_type(Api.MESSAGES, s)}` | {_codes_of(s)} |"
        for s in used
    ]
    return "\n".join(
        [
            shapes,
            "| code | status | when | what to do |",
            "| --- | --- | --- | --- |",
            *codes,
            "\n## Statuses\n",
            "| status | `type`, OpenAI's | `type`, Anthropic's | codes |",
            "| --- | --- | --- | --- |",
            *statuses,
            "",
        ]
    )


def _json(api: Api) -> str:
    return json.dumps(error_object(api, EXAMPLE), indent=2)


def _statuses(error: ErrorCode) -> str:
    return ", ".join(map(str, error.statuses)) or "llama-server's"


def _codes_of(status: int) -> str:
    return ", ".join(f"`{c}`" for c, e in sorted(ERROR_CODES.items()) if status in e.statuses)
