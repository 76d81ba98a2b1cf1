"""How long-running work reports its progress to its caller. Pure.

Rooms never print. A long-running function takes a `Report` and calls it with a `Step` at each
advance; `ui.py` draws a bar on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One moment of a long piece of work.

    `what` names the work and stays the same from its first step to its last ("compile", "fetch x.gguf");
    `done` and `total` count in `unit` ("B" for bytes, "steps", "s"); `total` is None while unknown.
    `note` is a remark for people ("GitHub cannot be reached, using the package registry"); a step with a
    note and no `done` is only that remark. A `warning` is shown even where remarks are not.
    """

    what: str
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate_per_s: float | None = None
    eta_s: float | None = None
    note: str = ""
    warning: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields that say something; seconds as `eta_s`, amounts in `unit`."""
        return {k: v for k, v in asdict(self).items() if not (v is None or v is False or v == "")}


Report = Callable[[Step], None]


def silent(step: Step) -> None:
    """A report that discards every step."""


def remark(report: Report, text: str, *, warning: bool = False) -> None:
    """Report `text` alone, without progress."""
    report(Step(what="", note=text, warning=warning))
