"""Names of Ollama's library for the models that have a recipe here. Pure.

nemotron-3-nano[:TAG]     library/nemotron-3-nano:30b-a3b-q8_0     https://ollama.com/library/nemotron-3-nano:4b
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from nemotron_ops.errors import UsageError

HOSTS = frozenset({"ollama.com", "www.ollama.com", "registry.ollama.ai"})
# family -> size in a tag -> recipe; the size "" is that of `latest`
FAMILIES = {
    "nemotron-3-nano": {"": "30b", "30b": "30b", "4b": "4b"},
    "nemotron-3-super": {"": "120b", "120b": "120b"},
}
TAG = re.compile(r"(\d+b)?(?:-a\d+b)?-?(q\d[a-z0-9_]*|bf16)?", re.IGNORECASE)


def recipe_word(text: str) -> str:
    """`RECIPE[:QUANT]` for a name or address of Ollama's library; any other text as it is.

    Raises UsageError for an address of that library that names no model of a recipe here.
    """
    name, ours = _below(text.strip().strip("<>\"'"))
    family, _, tag = name.lower().partition(":")
    family = family.removesuffix("/tags") if ours else family
    sizes = FAMILIES.get(family)
    if sizes is None and not ours:
        return text
    match = TAG.fullmatch("" if tag == "latest" else tag)
    if sizes is None or match is None or (match[1] or "").lower() not in sizes:
        cause = "it runs on Ollama's machines" if tag.endswith("cloud") else "no recipe here is that model"
        raise UsageError(
            f"cannot read {text} as a model: {cause}",
            hint="recipes: `nemotron-ops recipes list`; other models: `nemotron-ops models search WORDS`",
        )
    recipe = sizes[(match[1] or "").lower()]
    return f"{recipe}:{match[2].upper()}" if match[2] else recipe


def _below(text: str) -> tuple[str, bool]:
    """The name without `library/`, and whether it can only be one of Ollama's."""
    for scheme in ("https://", "http://", "ollama://", ""):
        rest = text.removeprefix(scheme)
        host, _, path = rest.partition("/")
        if text.startswith(scheme) and (host.lower() in HOSTS or scheme == "ollama://"):
            path = rest if scheme == "ollama://" else urlsplit(f"//{rest}").path.lstrip("/")
            if not path.startswith("hf.co/"):
                return path.rstrip("/").removeprefix("library/"), True
    family = text.removeprefix("library/").partition(":")[0].lower()
    return (text.removeprefix("library/"), text.startswith("library/") and family in FAMILIES)
