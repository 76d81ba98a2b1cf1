"""Several models on one machine: the order decides, and a quant that does not fit gives way to one that does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from nemotron_ops.host.facts import Facts, Gpu
from nemotron_ops.memory.fit import Mode
from nemotron_ops.memory.pack import ModelToPack, PackedModel, Quant, Refusal, pack
from nemotron_ops.policy import HOST
from tests.fakes.shapes import true_header

GIB = 1 << 30
SERVER: dict[str, Any] = {
    "ctx_size": 65536, "parallel": 4, "kv_unified": True, "ctx_checkpoints": 8, "cache_ram_mib": 2048
}  # fmt: skip


@cache
def quant(model: str, name: str) -> Quant:
    return Quant(name=name, header=true_header(model, name))


def wanted(model: str, *quants: str, **changes: Any) -> ModelToPack:
    found = ModelToPack(name=model, quants=tuple(quant(model, q) for q in quants or ("Q4_K",)), server=SERVER)
    return replace(found, **changes)


def host(ram_gib: float, *gpus_gib: float) -> Facts:
    gpus = tuple(
        Gpu(index=i, kind="cuda", name="gpu", memory_bytes=int(g * GIB), free_bytes=int(g * GIB))
        for i, g in enumerate(gpus_gib)
    )
    ram = int(ram_gib * GIB)
    return Facts(system="Linux", machine="x86_64", ram_bytes=ram, ram_available_bytes=ram, gpus=gpus)


def packed(facts: Facts, *models: ModelToPack) -> tuple[PackedModel, ...]:
    found = pack(models, facts)
    assert not isinstance(found, Refusal), found.error
    return found


def modes(found: PackedModel) -> list[Mode | None]:
    return [p.mode if p else None for p in found.placements]


def test_each_model_takes_its_memory_from_what_the_ones_before_it_left() -> None:
    alone = packed(host(64, 24), wanted("30b"))[0]
    first, second = packed(host(64, 24), wanted("30b"), wanted("4b"))
    assert first == alone
    assert modes(first) == [Mode.GPU]
    assert modes(second) != [Mode.GPU]
    second, first = packed(host(64, 24), wanted("4b"), wanted("30b"))
    assert modes(second) == [Mode.GPU]
    assert modes(first) != [Mode.GPU]


def test_a_model_that_starts_on_demand_leaves_all_memory_to_the_others() -> None:
    lazy, second = packed(host(64, 24), wanted("30b", on_demand=True), wanted("4b"))
    assert modes(lazy) == modes(second) == [Mode.GPU]


def test_replicas_get_a_device_each() -> None:
    found = packed(host(64, 24, 24), wanted("30b", devices=("CUDA0", "CUDA1")))[0]
    assert [set(p.bytes_by_device) for p in found.placements if p] == [{HOST, "CUDA0"}, {HOST, "CUDA1"}]


def test_the_best_of_the_other_quants_is_served_where_the_one_asked_for_does_not_fit() -> None:
    found = packed(host(40), wanted("30b", "BF16", "Q4_K", "Q8_0"))[0]
    assert found.quant == "Q8_0"
    assert found.notes[0].startswith("30b: serving Q8_0 instead of BF16: cannot fit")


def test_another_quant_is_not_taken_where_the_one_asked_for_fits_with_a_smaller_context() -> None:
    server = {**SERVER, "ctx_size": 1048576}
    found = packed(host(38), wanted("30b", "Q8_0", "Q4_K", server=server))[0]
    assert found.quant == "Q8_0"
    assert found.placements[0]
    assert found.placements[0].ctx_size < 1048576
    assert "context lowered from 1,048,576 to fit" in found.notes[0]


@pytest.mark.parametrize("others", [(), ("Q8_0",)])
def test_a_model_that_fits_with_none_of_its_quants_is_named_in_the_refusal(others: tuple[str, ...]) -> None:
    found = pack([wanted("4b"), wanted("120b", "BF16", *others)], host(64))
    assert isinstance(found, Refusal)
    assert found.model == "120b"
    assert "host needs" in found.error.message


def test_what_cannot_be_planned_is_noted_and_takes_no_memory() -> None:
    unknown = ModelToPack(
        name="new", quants=(Quant(name="Q8_0", header=None, why="not here"),), server=SERVER, devices=("", "")
    )
    found, second = packed(host(64, 24), unknown, wanted("30b"))
    assert found == PackedModel(quant="Q8_0", placements=(None, None), notes=("new: not here",))
    assert modes(second) == [Mode.GPU]
