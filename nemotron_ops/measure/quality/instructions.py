"""Task: forms of an answer that a program can check. Seeded random numbers."""

from __future__ import annotations

import json
import random
from typing import Any

from nemotron_ops.measure.quality.item import Answer, Item

WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "hazel", "islet", "jetty", "kelp", "lunar"),
    *("maple", "north", "ocean", "pearl", "quill", "ridge", "slate", "tulip", "umber", "violet", "willow", "zephyr"),
)
LETTERS = "etaoinsr"
THINGS = (
    *("a dog", "the sea", "a train", "winter", "bread", "a clock", "a kite", "the moon", "a market", "rain"),
    *("a violin", "the desert", "a lighthouse", "tea", "a garden", "snow", "a ferry", "chess", "a bicycle", "wood"),
)


def item(n: int, draws: random.Random) -> Item:
    """Item `n`: in rotation a word so many times, an order, an object, lines, a last word, a missing letter."""
    prompt, check, expected, solution = _asked(draws, n % 6)
    answer = Answer(content=solution)
    return Item(id=f"instructions-{n}", prompt=prompt, check=check, expected=expected, solution=answer)


def _asked(draws: random.Random, kind: int) -> tuple[str, str, dict[str, Any], str]:
    word, times, thing = draws.choice(WORDS), draws.randrange(2, 8), draws.choice(THINGS)
    match kind:
        case 0:
            text = ", ".join([word] * times)
            prompt = f"Write the word {word} exactly {times} times, separated by commas, and nothing else."
            return prompt, "words", {"words": [word] * times}, text
        case 1:
            some = draws.sample(WORDS, 4)
            order = "into alphabetical order, separated by spaces, and write nothing else"
            prompt = f"Put these words {order}: {' '.join(some)}"
            return prompt, "words", {"words": sorted(some)}, " ".join(sorted(some))
        case 2:
            value = {"name": word, "count": times, "open": bool(draws.randrange(2))}
            said = f'"name" is "{word}", "count" is {times}, "open" is {str(value["open"]).lower()}'
            prompt = f"Answer with one JSON object and nothing else: {said}."
            return prompt, "json", {"value": value}, json.dumps(value)
        case 3:
            prompt = f'Write exactly {times} lines about {thing}. Every line begins with "* ". Write nothing else.'
            return prompt, "lines", {"count": times, "start": "* "}, "\n".join(["* One."] * times)
        case 4:
            prompt = f"Write one sentence about {thing}. Its last word is {word}."
            return prompt, "last_word", {"least": 3, "word": word}, f"This ends in {word}."
        case _:
            letter, least = draws.choice(LETTERS), times + 2
            prompt = f"Write {least} words or more about {thing}, none of which holds the letter {letter}."
            return prompt, "without_letter", {"least": least, "letter": letter}, " ".join(["Zzz"] * least)
