"""Task: a fact in a long text, at every depth, beside others like it. Seeded random numbers."""

from __future__ import annotations

import random

from nemotron_ops.measure.load import WORDS
from nemotron_ops.measure.quality.item import Answer, Item

THINGS = ("lamp", "boat", "gate", "barn", "mill", "tower", "bench", "well")
COLOURS = ("red", "green", "blue", "white", "black", "yellow")
FACT = "The code of the {colour} {thing} is {code}."
OTHERS = 3


def item(n: int, draws: random.Random, *, words: int) -> Item:
    """Item `n`: a text of `words` words; its fact moves from the beginning to the end over ten items."""
    named = draws.sample([(c, t) for c in COLOURS for t in THINGS], OTHERS + 1)
    codes = [str(code) for code in draws.sample(range(100_000, 1_000_000), OTHERS + 1)]
    facts = [FACT.format(colour=c, thing=t, code=code) for (c, t), code in zip(named, codes, strict=True)]
    sentences = [" ".join(draws.choices(WORDS, k=9)).capitalize() + "." for _ in range(max(10, words // 9))]
    for fact in facts[1:]:
        sentences.insert(draws.randrange(len(sentences) + 1), fact)
    sentences.insert(round(n % 10 / 9 * len(sentences)), facts[0])
    colour, thing = named[0]
    question = f"What is the code of the {colour} {thing}? Answer with the code alone."
    return Item(
        id=f"needles-{n}",
        prompt=f"{' '.join(sentences)}\n\n{question}",
        check="holds",
        expected={"text": codes[0], "others": codes[1:]},
        solution=Answer(content=f"{codes[0]}."),
    )
