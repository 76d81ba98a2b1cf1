"""Joules by part of the machine, and what they mean for a load. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What parts of a machine used while a load ran: `joules` by part (`gpu0`, `package-0`), over `elapsed_s`."""

    joules: Mapping[str, float]
    elapsed_s: float

    @property
    def total(self) -> float:
        return sum(self.joules.values())

    @property
    def watts(self) -> float:
        return self.total / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Source(Protocol):
    """Something that tells the energy of parts of this machine. Calls come in turn from one thread at a time."""

    period_s: float  # how often `tick` must be called for a right result

    def start(self) -> None:
        """Count from here."""

    def tick(self) -> None:
        """Read, so that no counter wraps unseen and no change of power is missed."""

    def joules(self) -> Mapping[str, float]:
        """Joules of each part since `start`; empty where they could not be read to the end."""

    def close(self) -> None:
        """Give back what the source holds."""


def together(energies: Sequence[Energy | None]) -> Energy | None:
    """The energy of several loads; None if one of them was not measured."""
    if not energies or any(e is None for e in energies):
        return None
    joules: Counter[str] = Counter()
    for energy in energies:
        joules.update(energy.joules if energy else {})
    return Energy(joules=dict(joules), elapsed_s=sum(e.elapsed_s for e in energies if e))


def figures(energy: Energy | None, tokens: int) -> dict[str, Any]:
    """What a summary says of energy: watts, answer tokens per joule, joules by part; nothing if it was not measured."""
    if energy is None or energy.total <= 0:
        return {}
    joules = {part: float(f"{value:.6g}") for part, value in energy.joules.items()}
    return {"watts": energy.watts, "tokens_per_joule": tokens / energy.total, "joules": joules}
