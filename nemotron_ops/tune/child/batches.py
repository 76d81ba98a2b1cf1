"""Which samples each step learns from, and their padding. No torch.

A step's samples follow from the seed and the step alone, so that a resumed run sees what an undisturbed one would.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

IGNORED = -100  # label of a token that is not learnt


def indices(step: int, *, count: int, batch: int, seed: int) -> list[int]:
    """The samples of a step (from 0): each epoch is one shuffled pass over all of them."""
    found = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, at = divmod(position, count)
        order = list(range(count))
        random.Random(f"{seed}:{epoch}").shuffle(order)
        found.append(order[at])
    return found


def padded(samples: Sequence[tuple[Sequence[int], int]]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Token ids, labels and mask, padded on the right. A sample is its ids, and how many of them are its prompt.

    Samples are never packed into one row: the state of Mamba layers would leak from one to the next.
    """
    longest = max(len(ids) for ids, _ in samples)
    rows, labels, masks = [], [], []
    for ids, asked in samples:
        gap = longest - len(ids)
        rows.append([*ids, *[0] * gap])
        labels.append([*[IGNORED] * asked, *ids[asked:], *[IGNORED] * gap])
        masks.append([*[1] * len(ids), *[0] * gap])
    return rows, labels, masks


def rate(step: int, *, steps: int, peak: float) -> float:
    """The learning rate of a step: a short rise, then a straight line down to a tenth."""
    rise = max(1, min(10, steps // 10))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (1 - 0.9 * (step - rise) / max(1, steps - rise))
