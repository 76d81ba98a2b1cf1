"""The tasks by name. Their items are made by seed: nothing is copied or fetched. Seeded random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from difflib import get_close_matches

from nemotron_ops.errors import UsageError
from nemotron_ops.measure.quality import arithmetic, instructions, needles, tool_use
from nemotron_ops.measure.quality.item import Item

TRIES = 50  # draws for a question that has not come yet
TASKS = {
    "arithmetic": "sums, differences, products, two steps",
    "tool-use": "the right tool with the right arguments, or none",
    "instructions": "forms of an answer that can be checked",
    "needles": "a fact in a long text, at every depth",
}


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The tasks of these names, all for none. Raises UsageError for another name."""
    for name in names:
        if name not in TASKS:
            near = get_close_matches(name, TASKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"tasks: {', '.join(TASKS)}"
            raise UsageError(f"cannot run the task {name}: there is none of this name", hint=hint)
    return tuple(dict.fromkeys(names)) or tuple(TASKS)


def items_of(task: str, count: int, seed: int, *, words: int) -> tuple[Item, ...]:
    """`count` items without a question that comes twice; `words` is the length of the texts of needles.

    Questions that come twice would make intervals too narrow; beyond some hundreds of items a few may.
    """
    draws = random.Random(f"{seed} {task}")
    found: dict[str, Item] = {}
    items: list[Item] = []
    for n in range(count):
        for _ in range(TRIES):
            item = _item(task, n, draws, words)
            if item.prompt not in found:
                break
        found[item.prompt] = item
        items.append(item)
    return tuple(items)


def _item(task: str, n: int, draws: random.Random, words: int) -> Item:
    match task:
        case "arithmetic":
            return arithmetic.item(n, draws)
        case "tool-use":
            return tool_use.item(n, draws)
        case "instructions":
            return instructions.item(n, draws)
        case _:
            return needles.item(n, draws, words=words)
