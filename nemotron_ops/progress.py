"""How long work tells whoever waits how far it is. Pure.

Rooms never print. A function that takes long takes a `Report` and calls it with a `Step` whenever
something moved; `ui.py` draws a bar on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One moment of a long piece of work.

    `what` names the work and stays the same from its first step to its last ("compile", "fetch x.gguf");
    `done` and `total` count in `unit` ("B" for bytes, "steps", "s"); `total` is None while unknown.
    `note` is a remark for people ("GitHub cannot be reached, using the package registry"); a step with a
    note and no `done` is only that remark.
    """

    what: str
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate_per_s: float | None = None
    eta_s: float | None = None
    note: str = ""


Report = Callable[[Step], None]


def silent(step: Step) -> None:
    """The report of someone who does not want to know."""
