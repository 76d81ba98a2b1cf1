"""The most that a request may ask for: each bound of a field, with its reason. Pure.

llama-server has no bounds of its own for these. It builds samplers and grammars in its main thread, where all requests
wait, and some of its parsers recurse over the text. Times were measured at v0.5.0 with the tiny model on one core.
"""

from __future__ import annotations

from typing import NamedTuple

from nemotron_ops.gateway.api.errors import Refusal


class Limit(NamedTuple):
    """A bound: the most of what, and why."""

    field: str
    most: int
    unit: str
    why: str


GRAMMAR_BYTES = Limit("grammar", 65536, "bytes", "the parser copies and logs the text; known grammars have a tenth")
GRAMMAR_DEPTH = Limit(
    "grammar", 64, "open parentheses", "the parser recurses for each; 20,000 of them overflow its stack"
)
GRAMMAR_RULES = Limit("grammar", 1000, "rules", "the check for left recursion recurses along them")
GRAMMAR_SIZE = Limit("grammar", 200_000, "elements with their repetitions", "each takes memory in two copies")
GRAMMAR_WIDTH = Limit(
    "grammar", 1000, "ways to begin at one place",
    "the engine keeps all of them at each character and compares each with each; empty rules multiply them",
)  # fmt: skip
GRAMMAR_DOUBLED = Limit(
    "grammar", 64, "ways that begin alike at one place: behind empty rules, or of a rule that begins two alternatives",
    "the engine follows each of them through each token of the vocabulary: 500 take seconds for a token",
)  # fmt: skip
SCHEMA_BYTES = Limit("schema", 131_072, "bytes", "it becomes a grammar; OpenAI allows 120,000 characters")
SCHEMA_DEPTH = Limit("schema", 64, "levels, also through $ref", "the converter recurses for each; OpenAI allows 10")
SCHEMA_OPTIONAL = Limit(
    "schema", 256, "optional properties of one object", "time grows with their cube: 1,000 take a second, 5,000 minutes"
)
SCHEMA_WIDTH = Limit("schema", 1000, "alternatives at one place", "as for a grammar; OpenAI allows 1,000 enum values")
SCHEMA_REPEATS = Limit("schema", 200_000, "repetitions by minItems, maxLength and the like", "each becomes a rule")
PATTERN_BYTES = Limit("schema", 4096, "bytes of one pattern", "it becomes a rule")
TOOLS = Limit("tools", 512, "tools", "templates and grammars take time for each: 5,000 take a minute")
TOOLS_BYTES = Limit("tools", 1 << 20, "bytes", "all of them are read into the prompt and into a grammar")
KWARGS_BYTES = Limit("chat_template_kwargs", 65536, "bytes", "the template may print them into the prompt")
KWARGS_DEPTH = Limit("chat_template_kwargs", 64, "levels", "the template engine recurses over them")
MESSAGES = Limit("messages", 10_000, "messages", "the template takes time for each: 50,000 take half a minute")
BODY_KEYS = Limit("the request", 1000, "fields", "APIs have fewer than a hundred; all requests wait while it is read")
CONTEXT_BYTES = Limit(
    "prompt", 64, "bytes for each token of the context", "tokenizing takes 60 bytes of memory for each byte of text"
)
LIST_BYTES = Limit("prompt, input", 16 << 20, "bytes of several prompts together", "as for one prompt")
SAMPLERS = Limit("samplers", 32, "samplers, each once", "each takes memory of the context's size, and time per token")

GRAMMARS = (GRAMMAR_BYTES, GRAMMAR_DEPTH, GRAMMAR_RULES, GRAMMAR_SIZE, GRAMMAR_WIDTH, GRAMMAR_DOUBLED)
SCHEMAS = (SCHEMA_BYTES, SCHEMA_DEPTH, SCHEMA_OPTIONAL, SCHEMA_WIDTH, SCHEMA_REPEATS, PATTERN_BYTES)
OTHERS = (
    TOOLS, TOOLS_BYTES, KWARGS_BYTES, KWARGS_DEPTH, MESSAGES, BODY_KEYS, CONTEXT_BYTES, LIST_BYTES, SAMPLERS,
)  # fmt: skip

# Samplers allocate memory for this many tokens up front: gigabytes for one request.
LAST_TOKENS = frozenset({"repeat_last_n", "dry_penalty_last_n"})
LAST_TOKENS_MAX = 65536  # if the context size is not known
# The most entries of each; a sampler reads all of them per token, for some times the whole vocabulary.
COUNTS: dict[str, int] = {
    "samplers": SAMPLERS.most, "logit_bias": 1024, "stop": 64, "stop_sequences": 64, "dry_sequence_breakers": 64,
    "n": 64, "n_probs": 256, "logprobs": 256, "top_logprobs": 256,
}  # fmt: skip
PROMPTS = 128  # prompts times choices of one request
INPUTS = 2048  # texts to embed or rank, as in OpenAI's API
LISTS_BYTES = 65536  # of one such field as JSON


def exceeded(limit: Limit, field: str = "") -> Refusal:
    """The Refusal of a request that exceeds `limit` in `field`."""
    message = f"{field or limit.field}: at most {limit.most} {limit.unit}"
    return Refusal(status=400, code="limit_exceeded", message=message)
