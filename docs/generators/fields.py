"""Makes the page of request fields: which reach llama-server, which are dropped, and the bounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.fields import DROPPED, FORM, allowed
from nemotron_ops.gateway.request.meanings import ROWS
from nemotron_ops.gateway.request.reasoning import CLIENT_REASONING
from nemotron_ops.gateway.request.tool_choice import ENABLE, HOSTED, REFUSED

OF = {
    Api.CHAT: "`/v1/chat/completions`",
    Api.COMPLETION: "`/v1/completions`",
    Api.RESPONSES: "`/v1/responses`",
    Api.MESSAGES: "`/v1/messages`",
    Api.NATIVE: "`/completion`, `/infill`",
    Api.OTHER: "embeddings, rerank, `/tokenize` and the other routes",
}


def page() -> str:
    """`reference/fields.md`."""
    known = "".join(f"| {where} | {_names(allowed(api))} |\n" for api, where in OF.items())
    dropped = "".join(f"| {_names([name])} | {why} |\n" for name, why in DROPPED.items())
    bounds = (*limits.GRAMMARS, *limits.SCHEMAS, *limits.OTHERS)
    most = "".join(f"| {b.field} | {b.most:,} {b.unit} | {b.why} |\n" for b in bounds)
    counts = "".join(f"| `{name}` | {count} |\n" for name, count in limits.COUNTS.items())
    refused = "".join(
        f"| {OF[api]} | {_names([name])} | {remedy} |\n"
        for api, those in REFUSED.items()
        for name, remedy in those.items()
    )
    meanings = "".join(
        f"| {OF[row.api]} | {row.field} | {row.by}{f' `{row.code}`' if row.code else ''} | {row.note} |\n"
        for row in ROWS
    )
    hosted = "".join(f"| `{kind}…` | {_enables(what)} |\n" for kind, what in HOSTED.items())
    return f"""# Fields of requests

## Fields that reach llama-server

All others are dropped without an error: clients send fields that are meant for other servers, and what a future
llama-server makes of a new field is not known.

| request | fields |
|---|---|
{known}| uploads | {_names(FORM)}, and the file |

Fields that other servers have for reasoning are translated: {_names(CLIENT_REASONING)}
([connect clients](../how-to/connect-clients.md#thinking)).

## Fields that change what an answer means

None of these is dropped. Each row is sent to a real llama-server by `tests/real/gateway/test_gateway_meanings.py`.
Refusals have status 400; errors of the messages API have no code.

| request | field | honoured by | |
|---|---|---|---|
{meanings}
## Fields that are refused

These would change the answer, and no llama-server has them: 400 `unsupported_field`; for tools that would run at the
server 400 `tools_not_enabled`.

| request | field | instead |
|---|---|---|
{refused}
Tools that would run at the server get 400 `tools_not_enabled`, until they are enabled.

| type | |
|---|---|
{hosted}
The choice among tools is honoured in each API: [tool calls](../how-to/tool-calls.md).

## Fields of llama-server that are dropped

| field | why |
|---|---|
{dropped}
## Bounds

A request beyond one of these gets 400 `limit_exceeded`. `schema` is each schema in `json_schema`, `response_format`,
`text` or `tools`.

| of | at most | why |
|---|---|---|
{most}
| entries or value of | at most |
|---|---|
{counts}
Prompts times choices of one request: {limits.PROMPTS}; texts to embed or rank: {limits.INPUTS:,}.

A grammar whose ways multiply while the model writes is not refused (`root ::= "a" root "b" | "a" root "c"`): useful
grammars have such rules too. An engine that stops answering because of one is restarted, as for any other cause.
"""


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _enables(what: str) -> str:
    return f"`{ENABLE.format(what)}`" if what else "not supported; offer a function instead"
