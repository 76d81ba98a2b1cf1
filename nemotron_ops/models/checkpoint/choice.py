"""Which files of a checkpoint are taken: weights and data, never code. Pure.

A repository may hold Python that transformers would run, and pickles that run code when they are read. Neither is
taken, so a conversion runs no code of the model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from nemotron_ops.errors import ModelError
from nemotron_ops.models.ref import safe_name

WEIGHTS = re.compile(r".+\.safetensors")
USUAL = re.compile(r"model.*\.safetensors")
DATA = re.compile(r".+\.(json|jinja|tiktoken|model)|(merges|vocab)\.txt|README\.md", re.IGNORECASE)
PICKLED = re.compile(r".+\.(bin|pt|pth|ckpt)", re.IGNORECASE)
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"


def is_wanted(name: str) -> bool:
    """Whether a file of a repository may be needed for a conversion, by its name."""
    return "/" not in name and safe_name(name) and bool(WEIGHTS.fullmatch(name) or DATA.fullmatch(name))


def is_weights(name: str) -> bool:
    """Whether a chosen file holds tensors."""
    return WEIGHTS.fullmatch(name) is not None


def chosen(names: Iterable[str], what: str) -> tuple[str, ...]:
    """The files to take of `names`, weights first. Raises ModelError if `what` is no checkpoint in safetensors."""
    every = sorted(set(names))
    found = [n for n in every if is_wanted(n)]
    weights = [n for n in found if is_weights(n)]
    if "adapter_config.json" in found and not any(USUAL.fullmatch(n) for n in weights):
        raise ModelError(
            f"cannot convert {what}: it is an adapter, not a model",
            hint="convert its base, and serve the adapter with it: nemotron-ops serve MODEL --adapter NAME=FILE",
        )
    if not weights:
        pickled = next((n for n in every if PICKLED.fullmatch(n)), "")
        why = f"{pickled} is a pickle, which may run code when it is read" if pickled else "it has no .safetensors file"
        raise ModelError(f"cannot convert {what}: {why}", hint="save its weights as safetensors first")
    if CONFIG not in found:
        raise ModelError(f"cannot convert {what}: it has no {CONFIG}")
    usual = [n for n in weights if USUAL.fullmatch(n)]  # beside them may lie the same weights in another layout
    return (*(usual or weights), *(n for n in found if not is_weights(n)))


def check_index(index: Mapping[str, Any], weights: Iterable[str], what: str) -> None:
    """Raises ModelError if the index names a file of tensors that is not among `weights`."""
    named = index.get("weight_map")
    missing = sorted({str(v) for v in named.values()} - set(weights)) if isinstance(named, dict) else []
    if missing:
        raise ModelError(f"cannot convert {what}: {missing[0]} is missing, which its index names")
