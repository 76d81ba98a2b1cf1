"""Task: sums, differences, products, and two steps, of growing size. Seeded random numbers."""

from __future__ import annotations

import random

from nemotron_ops.measure.quality.item import Answer, Item

ASK = "Give the result as the last number of your answer."


def item(n: int, draws: random.Random) -> Item:
    """Item `n`: in rotation sums, differences, products, two steps; digits grow from two to five."""
    question, value = _question(draws, kind=n % 4, digits=2 + n // 4 % 4)
    return Item(
        id=f"arithmetic-{n}",
        prompt=f"What is {question}? {ASK}",
        check="number",
        expected={"value": value},
        solution=Answer(content=f"The result is {value}."),
    )


def _question(draws: random.Random, *, kind: int, digits: int) -> tuple[str, int]:
    a, b = (draws.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
    c = draws.randrange(2, 10)
    match kind:
        case 0:
            return f"{a} + {b}", a + b
        case 1:
            return f"{a} - {b}", a - b
        case 2:
            return f"{a} * {c}", a * c
        case _:
            return f"({a} + {b}) * {c}", (a + b) * c
