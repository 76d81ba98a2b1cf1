"""The meaning of each dimension of the residual stream; embedding and output matrix. Pure.

The stream carries, one dimension each: a one-hot code of the last token, a constant, flags that keywords raise,
and the results of the wired layers: the intent (the active script), "tools are offered", "call the tool". The other
dimensions get noise, so that all tokens differ.

    embedding ──▶ first Mamba layer ──▶ last attention layer ──▶ last feed-forward ──▶ output matrix
    token code    remembers the last    looks for `<tools` in    weather AND tools     next-token table,
    and flags     keyword: intent       the whole context        = call the tool       biased by intent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotron_ops.models.synthetic.scripts import (
    CLEARING_WORD,
    DEFAULT,
    END_THINK,
    SCRIPTS,
    TOOLS_WORD,
    Script,
    transitions,
)
from nemotron_ops.models.synthetic.vocabulary import Vocabulary

Array = npt.NDArray[np.float32]

LEVEL = 8.0  # of a set flag
NOISE_DIMENSIONS = 32
NEXT_DEFAULT, NEXT, MEMBER = 110.0, 85.0, 50.0  # position in a script outweighs membership in it


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Dimensions by meaning. `code` goes by token id, `keyword` and `intent` by script name."""

    code: Mapping[int, int]
    constant: int
    other: int  # any token outside the scripts
    keyword: Mapping[str, int]
    clearing: int
    tools_word: int
    intent: Mapping[str, int]
    tools: int
    noise: int  # this dimension and all above


def residual(vocab: Vocabulary, scripts: Mapping[str, Script] = SCRIPTS) -> Residual:
    """The dimensions in order, one per meaning."""
    coded: dict[int, None] = {}
    for script in scripts.values():
        coded |= dict.fromkeys(vocab.id(w) for w in (*script.think, *script.answer, *script.spellings))
    coded |= dict.fromkeys(vocab.id(w) for w in (CLEARING_WORD, TOOLS_WORD, "\n"))
    with_keywords = [name for name, script in scripts.items() if script.keywords]
    intents = [name for name in scripts if name != DEFAULT]
    at = len(coded)
    first_intent = at + 4 + len(with_keywords)
    return Residual(
        code={token: i for i, token in enumerate(coded)},
        constant=at,
        other=at + 1,
        clearing=at + 2,
        tools_word=at + 3,
        keyword={name: at + 4 + i for i, name in enumerate(with_keywords)},
        intent={name: first_intent + i for i, name in enumerate(intents)},
        tools=first_intent + len(intents),
        noise=first_intent + len(intents) + 1,
    )


def embedding(
    vocab: Vocabulary, res: Residual, n_embd: int, rng: np.random.Generator, scripts: Mapping[str, Script] = SCRIPTS
) -> Array:
    """(n_vocab, n_embd): each token's code and flags. Raises ValueError where n_embd leaves no room for noise."""
    if n_embd - res.noise < NOISE_DIMENSIONS:
        raise ValueError(f"{res.noise} dimensions are taken, n_embd {n_embd} is too small")
    e = np.zeros((len(vocab), n_embd), np.float32)
    e[:, res.constant] = LEVEL
    for token in range(len(vocab)):
        if token in res.code:
            e[token, res.code[token]] = LEVEL
        else:
            noise = rng.standard_normal(n_embd - res.noise)
            e[token, res.other] = LEVEL
            e[token, res.noise :] = noise / np.linalg.norm(noise)
    for name, dim in res.keyword.items():
        for word in scripts[name].spellings:
            e[vocab.id(word), dim] = LEVEL
    e[vocab.id(CLEARING_WORD), res.clearing] = LEVEL
    e[vocab.id(TOOLS_WORD), res.tools_word] = LEVEL
    return e


def output(
    vocab: Vocabulary, res: Residual, n_embd: int, rng: np.random.Generator, scripts: Mapping[str, Script] = SCRIPTS
) -> Array:
    """(n_vocab, n_embd): the next-token table of all scripts. Other tokens lead to an answer's first token."""
    w = (rng.standard_normal((len(vocab), n_embd)) * 0.02).astype(np.float32)
    w[:, : res.noise] = 0
    for name, script in scripts.items():
        level = NEXT_DEFAULT if name == DEFAULT else NEXT
        for token, following in transitions(script):
            row = w[vocab.id(following)]
            code = res.code[vocab.id(token)]
            row[code] = max(row[code], level)
            if token == END_THINK:  # a raw prompt has no </think>: it starts with the answer
                row[res.other] = max(row[res.other], level)
            if name != DEFAULT:
                row[res.intent[name]] = MEMBER
    return w
