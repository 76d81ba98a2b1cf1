"""The fields of each API that reach llama-server, their bounds, and their names in other APIs. Pure.

An allow-list: all other fields are dropped, also those that a future llama-server may add.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from nemotron_ops.gateway.api.routes import Api

DROPPED = {
    "id_slot": "another tenant's slot (and its cached prompt)",
    "n_cache_reuse": "wrong output on hybrid models (tools/server/server-context.cpp:3191, v0.5.0)",
    "n_discard": "negative values corrupt memory (CVE-2026-21869)",
    "lora": "another tenant's adapters",
    "n_cmpl": "another name of `n`, which is counted",
    "sse_ping_interval": "overrides llama-server's own timeouts",
    "verbose": "shows the whole prompt and all settings in the answer",
    "message_delimiters": "set by llama-server itself",
    "chat_format": "set by llama-server itself",
    "chat_parser": "set by llama-server itself",
    "generation_prompt": "set by llama-server itself",
    "grammar_lazy": "set by llama-server itself",
    "grammar_triggers": "set by llama-server itself",
    "preserved_tokens": "set by llama-server itself",
    "backend_sampling": "set by llama-server itself",
}
SAMPLING = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "typical_p",
        "dynatemp_range", "dynatemp_exponent", "repeat_last_n", "repeat_penalty", "frequency_penalty",
        "presence_penalty", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
        "dry_sequence_breakers", "mirostat", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay",
        "seed", "min_keep", "samplers", "logit_bias", "ignore_eos", "stop", "grammar", "json_schema",
    }
)  # fmt: skip
ANSWER = frozenset(
    {
        "model", "stream", "stream_options", "max_tokens", "n_predict", "n", "user", "cache_prompt", "n_keep",
        "timings_per_token", "return_progress", "return_tokens", "t_max_predict_ms", "t_max_prompt_ms", "n_probs",
        "post_sampling_probs", "n_indent", "response_fields", "prompt_cache_key",
    }
)  # fmt: skip
REASONING = frozenset(
    {
        "reasoning_format", "reasoning_effort", "reasoning_budget_tokens", "thinking_budget_tokens",
        "reasoning_budget_message", "reasoning_control", "chat_template_kwargs", "continue_final_message",
        "add_generation_prompt", "parse_tool_calls",
    }
)  # fmt: skip
CHAT = frozenset(
    {
        "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "logprobs", "top_logprobs",
        "max_completion_tokens",
    }
)  # fmt: skip

RESPONSES = frozenset(
    {
        "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "max_output_tokens",
        "reasoning", "include", "store", "truncation", "previous_response_id", "metadata", "top_logprobs",
        "background", "max_tool_calls", "safety_identifier", "service_tier",
    }
)  # fmt: skip
MESSAGES = frozenset(
    {
        "model", "messages", "system", "tools", "tool_choice", "stop_sequences", "max_tokens", "temperature",
        "top_p", "top_k", "stream", "thinking", "metadata", "chat_template_kwargs",
    }
)  # fmt: skip

ALLOWED: dict[Api, frozenset[str]] = {
    Api.CHAT: SAMPLING | ANSWER | REASONING | CHAT,
    Api.COMPLETION: SAMPLING | ANSWER | {"prompt", "suffix", "echo", "logprobs", "best_of"},
    Api.NATIVE: SAMPLING | ANSWER | {"prompt", "logprobs", "input_prefix", "input_suffix", "input_extra"},
    Api.RESPONSES: SAMPLING | ANSWER | REASONING | RESPONSES,
    Api.MESSAGES: MESSAGES,
    Api.OLLAMA: SAMPLING | ANSWER | REASONING | CHAT,  # once it is a chat
}
OTHER = frozenset(
    {
        "model", "input", "prompt", "content", "messages", "tools", "tool_choice", "encoding_format", "dimensions",
        "user", "query", "documents", "texts", "top_n", "return_text", "return_documents", "embd_normalize",
        "add_special", "parse_special", "with_pieces", "tokens", "chat_template_kwargs", "add_generation_prompt",
        "continue_final_message", "reasoning_format", "reasoning_effort", "response_format", "json_schema",
        "parallel_tool_calls",
    }
)  # fmt: skip

# The names of one field in each API: filled in under the first, read and capped under all.
SPELLINGS: dict[Api, tuple[str, ...]] = {
    Api.CHAT: ("max_tokens", "max_completion_tokens", "n_predict"),
    Api.COMPLETION: ("max_tokens", "n_predict"),
    Api.NATIVE: ("n_predict", "max_tokens"),
    Api.RESPONSES: ("max_output_tokens", "max_tokens", "n_predict"),
    Api.MESSAGES: ("max_tokens",),
    Api.OLLAMA: ("max_tokens", "max_completion_tokens", "n_predict"),
}
RENAMED = {"temp": "temperature", "n_predict": "max_tokens", "max_completion_tokens": "max_tokens"}


# The text fields of a form (an upload); llama-server turns it into a chat and would take any field of one.
FORM = frozenset({"model", "language", "prompt", "response_format", "temperature", "stream", "max_tokens"})


def allowed(api: Api) -> frozenset[str]:
    """The fields of a request of `api` that reach llama-server."""
    return ALLOWED.get(api, OTHER)


def limits(api: Api, fields: Mapping[str, msgspec.Raw]) -> list[bytes]:
    """The limits of the answer's length in `fields`, one for each name that they use."""
    return [bytes(fields[name]) for name in SPELLINGS[api] if name in fields]


@lru_cache(maxsize=1024)
def spellings(api: Api, name: str) -> tuple[str, ...]:
    """The names that the field `name` of a profile has in `api`; empty if that API has no such field."""
    name = RENAMED.get(name, name)
    if name == "max_tokens":
        return SPELLINGS.get(api, ())
    return (name,) if name in allowed(api) else ()
