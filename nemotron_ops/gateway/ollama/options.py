"""Turns `options` of Ollama's requests into fields of a chat. Pure.

An option that changes the answer is translated or refused; those that tell Ollama how to load a model change no answer,
and are dropped: how a model is loaded is decided where it is served.
"""

from __future__ import annotations

from typing import Any

from nemotron_ops.gateway.api.errors import Refusal

SAME = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty",
        "repeat_penalty", "repeat_last_n", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta",
    }
)  # fmt: skip
OF_LOADING = frozenset(
    {
        "num_gpu", "num_thread", "num_batch", "num_keep", "main_gpu", "low_vram", "use_mmap", "use_mlock", "numa",
        "f16_kv", "vocab_only", "logits_all", "penalize_newline", "tfs_z",
    }
)  # fmt: skip  # the last two are ignored by Ollama itself


def chat_options(options: Any, ctx_tokens: int) -> dict[str, Any]:
    """The fields of a chat for `options`; `ctx_tokens` is the context that is served, 0 if unknown. Raises Refusal."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise invalid("options: expected an object")
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or name in OF_LOADING:
            continue
        if name in SAME:
            found[name] = value
        elif name == "num_predict":
            if not isinstance(value, int) or isinstance(value, bool):
                raise invalid("options.num_predict: expected a whole number")
            if value >= 0:
                found["max_tokens"] = value
        elif name == "num_ctx":
            _check_context(value, ctx_tokens)
        else:
            raise unsupported(f"options.{name[:60]}: there is no such option")
    return found


def _check_context(value: Any, ctx_tokens: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("options.num_ctx: expected a whole number")
    if ctx_tokens and value > ctx_tokens:
        raise invalid(f"options.num_ctx: {value} tokens are asked for, {ctx_tokens} are served (--ctx-size)")


def invalid(message: str) -> Refusal:
    """The Refusal of a field's value."""
    return Refusal(status=400, code="invalid_field", message=message)


def unsupported(message: str) -> Refusal:
    """The Refusal of a field that is not there, or of what it asks for."""
    return Refusal(status=400, code="unsupported_field", message=message)
