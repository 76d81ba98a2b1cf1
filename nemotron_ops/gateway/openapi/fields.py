"""JSON schemas of request fields, with the types that llama-server accepts. Pure.

llama-server treats `null` as absent, and clients send it. Sizes are integers; -1 is allowed where llama-server gives it
a meaning.
"""

from __future__ import annotations

from typing import Any

from nemotron_ops.gateway.api.routes import Api, Kind, Route
from nemotron_ops.gateway.batches.batch import ENDPOINTS, METADATA_KEYS, METADATA_LETTERS, METADATA_NAME, WINDOW
from nemotron_ops.gateway.request import fields, limits
from nemotron_ops.gateway.request.bounds import RESERVED_KWARGS

Schema = dict[str, Any]

NUMBERS = frozenset(
    {
        "temperature", "top_p", "min_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "typical_p",
        "dynatemp_range", "dynatemp_exponent", "repeat_penalty", "frequency_penalty", "presence_penalty",
        "dry_multiplier", "dry_base", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay",
    }
)  # fmt: skip
INTEGERS = frozenset(
    {
        "top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "seed", "min_keep",
        "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n_keep", "t_max_predict_ms",
        "t_max_prompt_ms", "n_probs", "n_indent", "top_logprobs", "reasoning_budget_tokens", "thinking_budget_tokens",
        "dimensions", "top_n", "embd_normalize", "max_tool_calls",
    }
)  # fmt: skip
FLAGS = frozenset(
    {
        "stream", "ignore_eos", "cache_prompt", "timings_per_token", "return_progress", "return_tokens",
        "post_sampling_probs", "reasoning_control", "parse_tool_calls", "add_generation_prompt", "parallel_tool_calls",
        "echo", "store", "return_text", "return_documents", "add_special", "parse_special", "with_pieces",
        "background",
    }
)  # fmt: skip
TEXTS = frozenset(
    {
        "model", "user", "grammar", "prompt_cache_key", "reasoning_format", "reasoning_effort", "suffix",
        "reasoning_budget_message", "input_prefix", "input_suffix", "instructions", "truncation",
        "previous_response_id", "encoding_format", "query", "service_tier", "safety_identifier",
    }
)  # fmt: skip
OBJECTS = frozenset({"json_schema", "chat_template_kwargs", "metadata", "thinking", "reasoning", "text"})

TEXT: Schema = {"type": "string"}
TEXTS_LIST: Schema = {"type": "array", "items": TEXT}
TOKENS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
DATA_URL: Schema = {"type": "string", "pattern": "^data:[a-z]+/[a-z]+;base64,[A-Za-z0-9+/]*$"}
PART: Schema = {
    "anyOf": [
        {
            "type": "object", "required": ["type", "text"], "additionalProperties": False,
            "properties": {"type": {"enum": ["text", "input_text", "output_text"]}, "text": TEXT},
        },
        {
            "type": "object", "required": ["type", "image_url"], "additionalProperties": False,
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {
                    "type": "object", "required": ["url"], "properties": {"url": DATA_URL},
                    "additionalProperties": False,
                },
            },
        },
    ]
}  # fmt: skip
CONTENT: Schema = {"anyOf": [TEXT, {"type": "array", "items": PART}]}
MESSAGE: Schema = {
    "type": "object", "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [*CONTENT["anyOf"], {"type": "null"}]},
        "reasoning_content": TEXT, "tool_call_id": TEXT, "name": TEXT,
        "tool_calls": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip
TOOL_NAME: Schema = {"type": "string", "minLength": 1}
TOOL: Schema = {
    "type": "object", "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object", "required": ["name"],
            "properties": {"name": TOOL_NAME, "description": TEXT, "parameters": {"type": "object"}},
        },
    },
}  # fmt: skip
ANTHROPIC_TOOL: Schema = {
    "type": "object", "required": ["name", "input_schema"],
    "properties": {
        "type": {"const": "custom"}, "name": TOOL_NAME, "description": TEXT, "input_schema": {"type": "object"},
    },
}  # fmt: skip


def _block(kind: str, **properties: Schema) -> Schema:
    """A block of a message in Anthropic's API."""
    return {
        "type": "object", "required": ["type", *properties], "additionalProperties": False,
        "properties": {"type": {"const": kind}, **properties},
    }  # fmt: skip


def _source(kind: str, media_type: str, data: Schema) -> Schema:
    return _block(kind, media_type={"const": media_type}, data=data)


BASE64: Schema = {"type": "string", "pattern": "^[A-Za-z0-9+/]*$"}
BLOCKS: Schema = {
    "anyOf": [
        _block("text", text=TEXT),
        _block("thinking", thinking=TEXT),
        _block("image", source=_source("base64", "image/png", BASE64)),
        _block("document", title=TEXT, source=_source("text", "text/plain", TEXT)),
        _block("tool_use", id=TEXT, name=TEXT, input={"type": "object"}),
        _block("tool_result", tool_use_id=TEXT, content=TEXT),
    ]
}
BLOCK_MESSAGE: Schema = {
    "type": "object", "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["user", "assistant"]}, "content": {"anyOf": [TEXT, {"type": "array", "items": BLOCKS}]},
    },
}  # fmt: skip

SPECIAL: dict[str, Schema] = {
    "chat_template_kwargs": {
        "type": ["object", "null"], "propertyNames": {"not": {"enum": sorted(RESERVED_KWARGS)}},
    },
    "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
    "tools": {"type": "array", "items": TOOL},
    "tool_choice": {"anyOf": [{"enum": ["auto", "none", "required"]}, {"type": "object"}]},
    "prompt": {"anyOf": [TEXT, TOKENS, {**TEXTS_LIST, "maxItems": limits.PROMPTS // limits.COUNTS["n"]}]},
    "input": {"anyOf": [TEXT, {**TEXTS_LIST, "maxItems": limits.INPUTS}]},
    "system": CONTENT,
    "stop": {"anyOf": [TEXT, {**TEXTS_LIST, "maxItems": limits.COUNTS["stop"]}]},
    "stop_sequences": {**TEXTS_LIST, "maxItems": limits.COUNTS["stop_sequences"]},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "n": {"type": "integer", "minimum": 1, "maximum": limits.COUNTS["n"]},
    "best_of": {"type": "integer", "minimum": 1, "maximum": 64},
    "logprobs": {"type": ["boolean", "integer"], "maximum": limits.COUNTS["logprobs"]},
    "logit_bias": {
        "type": ["object", "array"], "maxItems": limits.COUNTS["logit_bias"],
        "maxProperties": limits.COUNTS["logit_bias"],
    },
    "samplers": {"anyOf": [TEXT, {**TEXTS_LIST, "maxItems": limits.COUNTS["samplers"]}]},
    "dry_sequence_breakers": {**TEXTS_LIST, "maxItems": limits.COUNTS["dry_sequence_breakers"]},
    "response_format": {"type": "object"},
    "response_fields": TEXTS_LIST,
    "include": TEXTS_LIST,
    "continue_final_message": {"type": ["boolean", "string"]},
    "input_extra": {"type": "array", "items": {"type": "object"}},
    "content": {"anyOf": [TEXT, {"type": "array"}]},
    "documents": {**TEXTS_LIST, "maxItems": limits.INPUTS},
    "texts": {**TEXTS_LIST, "maxItems": limits.INPUTS},
    "tokens": TOKENS,
}  # fmt: skip
RESPONSES_TOOL: Schema = {
    "type": "object", "required": ["type", "name"],
    "properties": {"type": {"enum": ["function", "custom"]}, "name": TEXT, "parameters": {"type": "object"}},
}  # fmt: skip
INPUT_ITEM: Schema = {
    "type": "object", "required": ["role", "content"],
    "properties": {
        "type": {"const": "message"}, "role": {"enum": ["user", "assistant", "system", "developer"]}, "content": TEXT,
    },
}  # fmt: skip
OF_API: dict[Api, dict[str, Schema]] = {
    Api.MESSAGES: {
        "tools": {"type": "array", "items": ANTHROPIC_TOOL},
        "tool_choice": {"type": "object"},
        "system": {"anyOf": [TEXT, {"type": "array", "items": _block("text", text=TEXT)}]},
        "messages": {"type": "array", "items": BLOCK_MESSAGE, "minItems": 1},
    },
    Api.RESPONSES: {
        "tools": {"type": "array", "items": RESPONSES_TOOL},
        "input": {"anyOf": [TEXT, {"type": "array", "items": INPUT_ITEM}]},
        "truncation": {"enum": ["disabled", None]},
        "n": {"enum": [1, None]},
        "max_tool_calls": {"type": ["integer", "null"], "minimum": 1},
        "background": {"enum": [False, None]},
        "previous_response_id": {"type": "null"},  # any id that a response had
    },
}

REQUIRED: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/chat/completions": ("messages",),
    "/v1/chat/completions/input_tokens": ("messages",),
    "/v1/completions": ("prompt",),
    "/v1/responses": ("input",),
    "/responses": ("input",),
    "/v1/responses/input_tokens": ("input",),
    "/chat/completions/input_tokens": ("messages",),
    "/responses/input_tokens": ("input",),
    "/v1/messages": ("messages", "max_tokens"),
    "/v1/messages/count_tokens": ("messages",),
    "/completion": ("prompt",),
    "/completions": ("prompt",),
    "/infill": ("input_prefix", "input_suffix"),
    "/v1/embeddings": ("input",),
    "/embeddings": ("content",),
    "/embedding": ("content",),
    "/v1/rerank": ("query", "documents"),
    "/v1/reranking": ("query", "documents"),
    "/rerank": ("query", "documents"),
    "/reranking": ("query", "documents"),
    "/tokenize": ("content",),
    "/detokenize": ("tokens",),
    "/apply-template": ("messages",),
}

_MODEL: dict[str, Schema] = {
    "model": TEXT,
    "options": {"type": "object", "additionalProperties": False},
    "keep_alive": TEXT,
}
_TURN: dict[str, Schema] = {**_MODEL, "stream": {"type": "boolean"}, "think": {"type": "boolean"}}
_OLLAMA_MESSAGE: Schema = {
    "type": "object", "required": ["role", "content"],
    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": TEXT},
    "additionalProperties": False,
}  # fmt: skip


def _ollama(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


OLLAMA: dict[str, Schema] = {
    "/api/chat": _ollama("messages", **_TURN, messages={"type": "array", "items": _OLLAMA_MESSAGE, "minItems": 1}),
    "/api/generate": _ollama("prompt", **_TURN, prompt={"type": "string", "minLength": 1}, system=TEXT),
    "/api/embed": _ollama("input", **_MODEL, input={"anyOf": [TEXT, {"type": "array", "items": TEXT}]}),
    "/api/embeddings": _ollama("prompt", **_MODEL, prompt=TEXT),
    **{path: _ollama(model=TEXT) for path in ("/api/show", "/api/pull", "/api/push", "/api/create", "/api/copy")},
}

WHOLE: dict[str, Schema] = {  # routes whose requests have other fields
    "/v1/chat/completions/control": {
        "type": "object", "required": ["id", "action"],
        "properties": {"id": {"type": "string", "minLength": 1}, "action": {"enum": ["reasoning_end"]}},
    }
}  # fmt: skip


def of(api: Api, name: str) -> Schema | None:
    """The schema of the field `name`; None if its type is not known."""
    special = OF_API.get(api, {}).get(name) or SPECIAL.get(name)
    if special is not None:
        return special
    if name in limits.COUNTS and name in INTEGERS:
        return {"type": ["integer", "null"], "maximum": limits.COUNTS[name]}
    groups = ((NUMBERS, "number"), (INTEGERS, "integer"), (FLAGS, "boolean"), (TEXTS, "string"), (OBJECTS, "object"))
    for names, kind in groups:
        if name in names:
            return {"type": [kind, "null"]}
    return None


def requests() -> dict[str, Schema]:
    """The named schemas that requests refer to, with all fields of each API."""
    return {
        _name(api): {"type": "object", "properties": {n: of(api, n) or {} for n in sorted(fields.allowed(api))}}
        for api in Api
        if api is not Api.OLLAMA
    }


FILE_FORM: Schema = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"const": "batch"}},
    "required": ["file", "purpose"],
}
BATCH: Schema = {
    "type": "object",
    "properties": {
        "input_file_id": TEXT, "endpoint": {"enum": list(ENDPOINTS)}, "completion_window": {"const": WINDOW},
        "metadata": {
            "type": ["object", "null"], "maxProperties": METADATA_KEYS, "propertyNames": {"maxLength": METADATA_NAME},
            "additionalProperties": {"type": "string", "maxLength": METADATA_LETTERS},
        },
    },
    "additionalProperties": False,
    "required": ["input_file_id", "endpoint", "completion_window"],
}  # fmt: skip


def of_route(route: Route) -> Schema:
    """The schema of a JSON request to `route`."""
    if route.path in OLLAMA:
        return OLLAMA[route.path]
    if route.path in WHOLE:
        return WHOLE[route.path]
    return {"$ref": f"#/components/schemas/{_name(route.api)}", "required": list(REQUIRED[route.path])}


def _name(api: Api) -> str:
    return f"{api.value.capitalize()}Request"


def form(route: Route) -> Schema:
    """The schema of a form upload."""
    assert route.kind is Kind.UPLOAD
    known = dict.fromkeys(sorted(fields.FORM), TEXT)
    return {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, **known, "stream": {"enum": ["true", "false"]}},
        "required": ["file"],
    }
