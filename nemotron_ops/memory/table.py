"""Quants × contexts: what fits one machine, and which row to take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_ops.errors import FitError, ModelError
from nemotron_ops.memory.fit import (
    FitRequest,
    Mode,
    Placement,
    at_context,
    fit_request,
    largest_context,
    place,
    usable_modes,
)
from nemotron_ops.memory.machine import Machine
from nemotron_ops.memory.model import settings_from, weight_bytes
from nemotron_ops.memory.model_shape import ModelShape, model_shape
from nemotron_ops.models.gguf import Header

MODE_ORDER = list(Mode)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One quant with one context: a placement, or why there is none."""

    ctx_size: int
    placement: Placement | None = None
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quant. `largest_context` is the most that fits in any mode, `unknown` says why nothing can be computed."""

    quant: str
    weight_bytes: int
    cells: tuple[Cell, ...] = ()
    largest_context: int = 0
    unknown: str = ""

    def cell(self, ctx_size: int) -> Cell | None:
        return next((c for c in self.cells if c.ctx_size == ctx_size), None)


def row(
    quant: str,
    header: Header,
    machine: Machine,
    server: Mapping[str, Any],
    contexts: Sequence[int],
    *,
    asked: Collection[str] = (),
    most_tokens: int | None = None,
) -> Row:
    """The row of one quant, with every context as a fixed setting. `most_tokens` bounds the largest context."""
    try:
        shape = model_shape(header)
        settings = settings_from({**server, "ctx_size": contexts[0]})
        request = fit_request(shape, settings, machine, server, {*asked, "ctx_size"})
        cells = tuple(_cell(request, ctx) for ctx in contexts)
        return Row(
            quant=quant,
            weight_bytes=weight_bytes(shape),
            cells=cells,
            largest_context=_largest(request, shape, most_tokens),
        )
    except (FitError, ModelError) as exc:
        return Row(quant=quant, weight_bytes=header.weight_bytes, unknown=exc.message)


def recommended(rows: Sequence[Row], ctx_size: int, *, preferred: str) -> Row | None:
    """The row to take at `ctx_size`: the recipe's own quant unless another one fits in a better mode.

    A better mode comes earlier in `Mode`; among equal modes the quant with most bytes is the best one.
    """
    fitting = [(r, c.placement.mode) for r in rows if (c := r.cell(ctx_size)) and c.placement]
    if not fitting:
        return None
    best = min(MODE_ORDER.index(mode) for _, mode in fitting)
    same = [r for r, mode in fitting if MODE_ORDER.index(mode) == best]
    mine = [r for r in same if r.quant.upper() == preferred.upper()]
    smaller = [r for r in same if r.weight_bytes <= _weight_of(rows, preferred)]
    return (mine or sorted(smaller or same, key=lambda r: r.weight_bytes))[-1]


def _weight_of(rows: Sequence[Row], quant: str) -> float:
    return next((r.weight_bytes for r in rows if r.quant.upper() == quant.upper()), float("inf"))


def _cell(request: FitRequest, ctx_size: int) -> Cell:
    try:
        return Cell(ctx_size=ctx_size, placement=place(at_context(request, ctx_size)))
    except FitError as exc:
        return Cell(ctx_size=ctx_size, why_not=exc.message.partition(": ")[2] or exc.message)


def _largest(request: FitRequest, shape: ModelShape, most_tokens: int | None) -> int:
    upto = min(shape.n_ctx_train, most_tokens or shape.n_ctx_train)
    return max(largest_context(request, mode, upto=upto) for mode in usable_modes(request))
