"""Packs several models into one machine: the quant and the placement of each, or a refusal. Pure.

Models are packed in the order given; each takes its memory from what the ones before it left. A model that starts on
demand takes none: at its start it gets what is free then. Where the quant asked for does not fit, another one of
`quants` takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nemotron_ops.errors import FitError
from nemotron_ops.host.facts import Facts
from nemotron_ops.memory import fit, table
from nemotron_ops.memory.fit import Placement
from nemotron_ops.memory.machine import Machine, machine
from nemotron_ops.memory.model_shape import UnknownArchitectureError
from nemotron_ops.models.gguf import Header

CONTEXTS = (16384, 65536, 262144, 1048576)  # tried below the context of the recipe


@dataclass(frozen=True, kw_only=True)
class Quant:
    """One quant of a model. `header` is None where it is not known; `why` says so."""

    name: str
    header: Header | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelToPack:
    """A model that wants memory. `server` holds llama-server's flags by field name; those in `by_hand` are kept.

    The first of `quants` is the one asked for. `devices` has one entry per replica, "" where llama-server chooses.
    """

    name: str
    quants: tuple[Quant, ...]
    server: Mapping[str, Any]
    by_hand: frozenset[str] = frozenset()
    most_tokens: int | None = None
    devices: tuple[str, ...] = ("",)
    mmproj_bytes: int = 0
    lora_bytes: int = 0
    on_demand: bool = False


@dataclass(frozen=True, kw_only=True)
class PackedModel:
    """The quant to serve, and a placement for each replica: None where its memory cannot be planned."""

    quant: str
    placements: tuple[Placement | None, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The first model that does not fit, with none of its quants."""

    model: str
    error: FitError


@dataclass(frozen=True, kw_only=True)
class QuantTable:
    """Quants × contexts on one machine, the line to take, and with which context."""

    machine: Machine
    contexts: tuple[int, ...]
    rows: tuple[table.Row, ...]
    chosen: table.Row | None
    ctx_size: int


def pack(models: Sequence[ModelToPack], facts: Facts, *, backend: str = "") -> tuple[PackedModel, ...] | Refusal:
    """Quant and placements of all `models`, in their order, or why there are none."""
    used: Mapping[str, int] = {}
    packed = []
    for model in models:
        try:
            found = _pack_one(model, facts, backend, used)
        except FitError as exc:
            return Refusal(model=model.name, error=exc)
        if not model.on_demand:
            used = _plus(used, *(p.bytes_by_device for p in found.placements if p))
        packed.append(found)
    return tuple(packed)


def quant_table(model: ModelToPack, pools: Machine, contexts: tuple[int, ...], *, preferred: str) -> QuantTable:
    """What fits of every quant with every context, and the one to take at the model's own context or below it.

    The quant `preferred` is taken unless another one fits in a better way.
    """
    server = model.server
    rows = tuple(
        table.row(q.name, q.header, pools, server, contexts, asked=model.by_hand, most_tokens=model.most_tokens)
        if q.header
        else table.Row(quant=q.name, weight_bytes=0, unknown=q.why)
        for q in model.quants
    )
    own = server["ctx_size"]
    for ctx in (own, *sorted((c for c in contexts if c < own), reverse=True)):
        if chosen := table.recommended(rows, ctx, preferred=preferred):
            return QuantTable(machine=pools, contexts=contexts, rows=rows, chosen=chosen, ctx_size=ctx)
    return QuantTable(machine=pools, contexts=contexts, rows=rows, chosen=None, ctx_size=own)


def capacity_bytes(facts: Facts, *, backend: str) -> Mapping[str, int]:
    """The memory that all models together may take, by device."""
    pools = machine(facts, backend=backend)
    return {d.name: d.room_bytes for d in (pools.host, *pools.gpus)}


def _pack_one(model: ModelToPack, facts: Facts, backend: str, used: Mapping[str, int]) -> PackedModel:
    """The model with its own quant, else with the best of the others. Raises FitError."""
    own = model.quants[0]
    if own.header is None:
        return _unplanned(model, own.why)
    try:
        return _placed(model, own, facts, backend, used)
    except UnknownArchitectureError as exc:
        return _unplanned(model, f"{exc.message}; its memory is not planned")
    except FitError as exc:
        other = _best_other(model, facts, backend)
        if other is None:
            raise
        found = _placed(model, other, facts, backend, used)
        note = f"{model.name}: serving {other.name} instead of {own.name}: {exc.message}"
        return replace(found, notes=(note, *found.notes))


def _placed(model: ModelToPack, quant: Quant, facts: Facts, backend: str, used: Mapping[str, int]) -> PackedModel:
    """Placements of all replicas. Raises FitError, and UnknownArchitectureError where nothing can be said."""
    assert quant.header is not None
    placements: list[Placement] = []
    for device in model.devices:
        taken = [] if model.on_demand else [p.bytes_by_device for p in placements]
        devices = (device,) if device else ()
        pools = machine(facts, backend=backend, devices=devices, used_bytes=_plus(used, *taken))
        placements.append(
            fit.choose(
                quant.header,
                pools,
                model.server,
                asked=model.by_hand,
                mmproj_bytes=model.mmproj_bytes,
                lora_bytes=model.lora_bytes,
            )
        )
    lowered = [p.why for p in placements if p.ctx_size != model.server.get("ctx_size")]
    notes = tuple(f"{model.name}: {why}" for why in dict.fromkeys(lowered))
    return PackedModel(quant=quant.name, placements=tuple(placements), notes=notes)


def _best_other(model: ModelToPack, facts: Facts, backend: str) -> Quant | None:
    """The best quant that this machine has memory for, if it is not the one asked for; None if there is none."""
    if len(model.quants) < 2:
        return None
    own = model.server["ctx_size"]
    lower = () if "ctx_size" in model.by_hand else tuple(c for c in CONTEXTS if c < own)
    asked, pools = model.quants[0].name, machine(facts, backend=backend)
    chosen = quant_table(model, pools, (*lower, own), preferred=asked).chosen
    if chosen is None or chosen.quant == asked:
        return None
    return next(q for q in model.quants if q.name == chosen.quant)


def _unplanned(model: ModelToPack, why: str) -> PackedModel:
    placements = (None,) * len(model.devices)
    return PackedModel(quant=model.quants[0].name, placements=placements, notes=(f"{model.name}: {why}",))


def _plus(used: Mapping[str, int], *more: Mapping[str, int]) -> dict[str, int]:
    """The sum of bytes by device."""
    total = dict(used)
    for taken in more:
        for device, count in taken.items():
            total[device] = total.get(device, 0) + count
    return total
