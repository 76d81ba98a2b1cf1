"""The text of a whole recipe for a model, from what its header and its hub's card say. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

KEYS = "docs/reference/recipes.md explains every key."
CONTEXT = 16384  # tokens; the guide's
POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}  # llama.cpp's enum llama_pooling_type


@dataclass(frozen=True, kw_only=True)
class Described:
    """What is known of a model. `pooling` is llama.cpp's pooling type, 0 for a model that writes text."""

    repo: str
    quant: str = ""
    revision: str = "main"
    alias: str = ""
    path: str = ""
    title: str = ""
    arch: str = ""
    license: str = ""
    base: str = ""
    trained_tokens: int = 0
    pooling: int = 0
    mmproj: bool = False
    sampling: Mapping[str, float] = field(default_factory=dict)
    sampling_from: str = ""

    @property
    def purpose(self) -> str:
        """chat, embedding or reranking."""
        return {0: "chat", 4: "reranking"}.get(self.pooling, "embedding")


def recipe_text(model: Described) -> str:
    """A recipe file with comments that say where its values come from."""
    parts = [_head(model), _model(model), _context(model), _server(model)]
    if model.purpose == "chat":
        parts.append(_profile(model))
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(model: Described) -> str:
    made_from = f" Made from {_line(model.base)}." if model.base else ""
    terms = f" Licence: {_line(model.license)}." if model.license else ""
    lines = [f"# {_line(model.repo or model.path)}.{made_from}{terms}", f"# {KEYS}", ""]
    keys = {"title": model.title, "arch": model.arch}
    keys["default_profile"] = "chat" if model.purpose == "chat" and model.sampling else ""
    return "\n".join([*lines, *(f"{k} = {_text(v)}" for k, v in keys.items() if v)])


def _model(model: Described) -> str:
    keys = {"repo": model.repo, "path": model.path, "quant": model.quant, "alias": model.alias}
    keys["revision"] = model.revision if model.revision != "main" else ""
    lines = [f"{k} = {_text(v)}" for k, v in keys.items() if v]
    return "\n".join(["[model]", *lines, *(["mmproj = true"] if model.mmproj else [])])


def _context(model: Described) -> str:
    most = model.trained_tokens
    lines = ["[context]", f"default_tokens = {min(CONTEXT, most) if most else CONTEXT}"]
    return "\n".join([*lines, *([f"max_tokens = {most}  # header: context_length"] if most else [])])


def _server(model: Described) -> str:
    lines = ["[server]", "parallel = 4", "kv_unified = true"]
    if model.purpose == "reranking":
        lines.append('extra_args = ["--rerank"]  # header: pooling_type 4')
    elif model.pooling:
        words = json.dumps(["--embedding", "--pooling", POOLING[model.pooling]])
        lines.append(f"extra_args = {words}  # header: pooling_type {model.pooling}")
    return "\n".join(lines)


def _profile(model: Described) -> str:
    if not model.sampling:
        return "# Header and hub state no sampling: llama-server's defaults hold. A table [profiles.chat] sets others."
    lines = [f"{key} = {value}" for key, value in model.sampling.items()]
    return "\n".join(["[profiles.chat]", f"about = {_text('sampling from ' + model.sampling_from)}", *lines])


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's, for the letters that JSON writes."""
    return json.dumps(_line(value), ensure_ascii=False)


def _line(value: str) -> str:
    """Text from the network as a part of one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:200]
