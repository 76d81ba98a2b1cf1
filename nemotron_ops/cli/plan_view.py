"""Renders a memory plan: short words for the table, bars for the devices. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nemotron_ops.memory.fit import Mode, Placement
from nemotron_ops.memory.log import Comparison
from nemotron_ops.memory.machine import Machine
from nemotron_ops.memory.table import Cell, Row
from nemotron_ops.ui import size

BAR_WIDTH = 30
FULL, EMPTY = "█", "░"


def machine_line(machine: Machine) -> str:
    """The machine in a line: the memory that each device can give."""
    gpus = ", ".join(f"{g.name} {g.label}: {size(g.room_bytes)} of {size(g.total_bytes)} to give" for g in machine.gpus)
    host = f"host memory: {size(machine.host.room_bytes)} of {size(machine.host.total_bytes)} to give"
    shared = " (shared with the GPU)" if machine.unified else ""
    unmeasured = "".join(f"; {n} does not report its memory" for n in machine.unmeasured)
    return f"{gpus or 'no GPU'}; {host}{shared}{unmeasured}"


def cell_word(cell: Cell) -> str:
    """A table cell in one or two words."""
    if cell.placement is None:
        return "no"
    match cell.placement.mode:
        case Mode.GPU:
            return "gpu"
        case Mode.EXPERTS_ON_CPU:
            return f"gpu, n-cpu-moe {cell.placement.n_cpu_moe}"
        case Mode.SOME_LAYERS:
            return f"{cell.placement.n_gpu_layers} layers on gpu"
        case Mode.CPU:
            return "cpu"


def table_rows(rows: Sequence[Row], contexts: Sequence[int], chosen: Row | None) -> list[list[str]]:
    """The lines of the table quant × context; the recommended one has a star."""
    found = []
    for row in rows:
        words = ["unknown" if row.unknown else cell_word(c) for c in row.cells] or ["unknown"] * len(contexts)
        most = f"{row.largest_context:,}" if row.largest_context else "-"
        found.append(["*" if row is chosen else "", row.quant, size(row.weight_bytes), *words, most])
    return found


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why cells are "no", one line per quant: for the smallest context that does not fit."""
    found = []
    for row in rows:
        if row.unknown:
            found.append(f"{row.quant}: {row.unknown}")
            continue
        if first := next((c for c in row.cells if c.placement is None), None):
            found.append(f"{row.quant} with {first.ctx_size:,} tokens: {first.why_not}")
    return found


def bars(placement: Placement) -> list[str]:
    """One bar per device: the part of its free memory that the model takes."""
    width = max(len(name) for name in placement.bytes_by_device)
    lines = []
    for name, taken in placement.bytes_by_device.items():
        room = placement.free_bytes[name]
        lines.append(f"{name.ljust(width)}  {bar(taken, room)}  {size(taken)} of {size(room)}")
    return lines


def bar(taken: int, room: int, width: int = BAR_WIDTH) -> str:
    """A bar of fixed width, `taken` parts of `room` filled; anything taken shows, and only a full room looks full."""
    share = taken / room if room else 1.0
    filled = width if share >= 1 else min(width - 1, max(int(share * width), 1 if taken else 0))
    return FULL * filled + EMPTY * (width - filled)


def buffers_line(placement: Placement) -> str:
    """The buffers behind the bars."""
    e = placement.estimate
    parts = {
        "weights": e.weights,
        "KV cache": e.kv + e.mtp_kv,
        "recurrent state": e.rs,
        "compute": e.compute + e.mtp_compute + e.output,
        "checkpoints at most": e.checkpoints_max,
        "prompt cache at most": e.prompt_cache_max,
    }
    return ", ".join(f"{k} {size(v)}" for k, v in parts.items() if v)


def placement_value(placement: Placement) -> dict[str, Any]:
    """A placement for `--json`."""
    return asdict(placement)


def row_value(row: Row, *, chosen: bool) -> dict[str, Any]:
    """A line of the table for `--json`."""
    cells = [
        {
            "ctx_size": c.ctx_size,
            "fits": c.placement is not None,
            "why_not": c.why_not,
            "placement": placement_value(c.placement) if c.placement else None,
        }
        for c in row.cells
    ]
    return {
        "quant": row.quant,
        "weight_bytes": row.weight_bytes,
        "largest_context": row.largest_context,
        "recommended": chosen,
        "unknown": row.unknown,
        "contexts": cells,
    }


def comparison_rows(found: Sequence[Comparison]) -> list[list[str]]:
    """Predicted against logged, for the table of `--compare-log`."""
    return [
        [c.kind, f"{c.predicted_mib:.2f}", f"{c.logged_mib:.2f}", "-" if c.ratio is None else f"{c.ratio:.3f}"]
        for c in found
    ]
