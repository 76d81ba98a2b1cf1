"""Placements of models on other machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemotron_ops.errors import FitError, UsageError
from nemotron_ops.host.facts import Facts, Gpu
from nemotron_ops.memory import fit
from nemotron_ops.memory.fit import Mode, Placement, choose
from nemotron_ops.memory.machine import Device, Machine, machine
from nemotron_ops.memory.model import MIB, Settings
from nemotron_ops.memory.model_shape import ModelShape, model_shape
from nemotron_ops.memory.placement import Split, bytes_by_device, even_split
from nemotron_ops.memory.table import recommended, row
from nemotron_ops.models.gguf import Header
from nemotron_ops.policy import GIB, HOST
from tests.fakes.shapes import true_header

SERVER: dict[str, Any] = {
    "ctx_size": 262144, "parallel": 4, "kv_unified": True, "ctx_checkpoints": 8, "cache_ram_mib": 2048
}  # fmt: skip


@cache
def model(name: str, quant: str = "Q4_K") -> Header:
    return true_header(name, quant)


def host(ram: float, *gpus: float, kind: str = "cuda", unified: bool = False) -> Facts:
    found = tuple(
        Gpu(index=i, kind=kind, name="gpu", memory_bytes=int(g * GIB), free_bytes=int(g * GIB), unified=unified)
        for i, g in enumerate(gpus)
    )
    system = "Darwin" if kind == "metal" else "Linux"
    return Facts(
        system=system, machine="x86_64", ram_bytes=int(ram * GIB), ram_available_bytes=int(ram * GIB), gpus=found
    )


def place(name: str, facts: Facts, *, quant: str = "Q4_K", asked: tuple[str, ...] = (), **changes: Any) -> Placement:
    return choose(model(name, quant), machine(facts), {**SERVER, **changes}, asked=asked)


@pytest.mark.parametrize(
    ("name", "facts", "mode", "ctx_size"),
    [
        ("4b", host(16), Mode.CPU, 262144),
        ("4b", host(32, 8), Mode.GPU, 262144),
        ("30b", host(32), Mode.CPU, 262144),
        ("30b", host(64, 24), Mode.GPU, 262144),
        ("30b", host(64, 8), Mode.EXPERTS_ON_CPU, 262144),
        ("30b", host(64, 14, 14), Mode.GPU, 262144),
        ("120b", host(64, 80), Mode.GPU, 262144),
        ("120b", host(128, 24), Mode.EXPERTS_ON_CPU, 262144),
        ("4b", host(64, 4), Mode.SOME_LAYERS, 262144),
        ("30b", host(64, 64, kind="metal", unified=True), Mode.GPU, 262144),
        ("120b", host(128, 128, unified=True), Mode.GPU, 262144),
    ],
)
def test_the_best_way_is_found(name: str, facts: Facts, mode: Mode, ctx_size: int) -> None:
    found = place(name, facts)
    assert (found.mode, found.ctx_size) == (mode, ctx_size)
    for device, taken in found.bytes_by_device.items():
        assert taken <= found.free_bytes[device], device


def test_a_context_nobody_asked_for_is_lowered_to_stay_on_the_gpu() -> None:
    found = place("30b", host(64, 22.5), ctx_size=1048576)
    assert found.mode is Mode.GPU
    assert 65536 <= found.ctx_size < 1048576
    assert "context lowered from 1,048,576" in found.why


def test_a_context_that_was_asked_for_is_kept() -> None:
    found = place("30b", host(64, 22.5), ctx_size=1048576, asked=("ctx_size",))
    assert (found.mode, found.ctx_size) == (Mode.EXPERTS_ON_CPU, 1048576)


def test_experts_move_to_the_host_only_as_far_as_needed() -> None:
    found = place("30b", host(64, 16))
    h, pools = model_shape(model("30b")), machine(host(64, 16))
    s = Settings(ctx_size=262144)
    gpu = pools.gpus[0]
    assert bytes_by_device(h, s, pools, even_split(h, s, pools, 53, found.n_cpu_moe))[gpu.name] <= gpu.room_bytes
    assert bytes_by_device(h, s, pools, even_split(h, s, pools, 53, found.n_cpu_moe - 1))[gpu.name] > gpu.room_bytes


def test_layers_asked_for_are_kept_or_refused() -> None:
    assert place("30b", host(64, 24), n_gpu_layers=10, asked=("n_gpu_layers",)).n_gpu_layers == 10
    assert place("30b", host(64, 24), n_gpu_layers="all", asked=("n_gpu_layers",)).n_gpu_layers == 53
    assert place("30b", host(64, 24), n_gpu_layers=0, asked=("n_gpu_layers",)).mode is Mode.CPU
    with pytest.raises(FitError, match="CUDA0 needs"):
        place("30b", host(64, 8), n_gpu_layers="all", asked=("n_gpu_layers",))


def test_host_memory_that_grows_later_is_capped_to_what_is_left() -> None:
    roomy, tight = place("30b", host(64)), place("30b", host(25))
    assert (roomy.ctx_checkpoints, roomy.cache_ram_mib) == (8, 2048)
    assert 1 <= tight.ctx_checkpoints <= 8
    assert tight.cache_ram_mib < 2048
    assert tight.bytes_by_device[HOST] <= tight.free_bytes[HOST]


def test_caps_that_were_asked_for_are_kept_or_refused() -> None:
    asked = ("ctx_checkpoints", "cache_ram_mib")
    with pytest.raises(FitError, match="host needs"):
        place("30b", host(24), ctx_checkpoints=32, cache_ram_mib=8192, asked=(*asked, "ctx_size"))
    assert place("30b", host(64), ctx_checkpoints=32, cache_ram_mib=8192, asked=asked).ctx_checkpoints == 32


def test_a_refusal_names_the_lack_and_the_nearest_that_would_fit() -> None:
    with pytest.raises(FitError, match=r"host needs 24\.\d GB, has 23\.\d GB to give") as caught:
        place("30b", host(22.7), asked=("ctx_size",))
    assert caught.value.hint is not None
    nearest = int(caught.value.hint.rpartition(" ")[2])
    assert place("30b", host(22.7), ctx_size=nearest, asked=("ctx_size",)).ctx_size == nearest
    with pytest.raises(FitError):
        place("30b", host(22.7), ctx_size=nearest + 1024, asked=("ctx_size",))


def test_a_model_that_cannot_fit_at_all_says_what_its_weights_take() -> None:
    with pytest.raises(FitError, match="host needs") as caught:
        place("120b", host(16))
    assert caught.value.hint is not None
    assert "its weights alone take 75.2 GB" in caught.value.hint


def test_models_share_one_budget() -> None:
    facts = host(64, 24)
    first = place("30b", facts)
    left = machine(facts, used_bytes=first.bytes_by_device)
    with pytest.raises(FitError, match="CUDA0 needs"):
        choose(model("30b"), left, {**SERVER, "n_gpu_layers": "all"}, asked=("n_gpu_layers",))
    second = choose(model("4b"), left, SERVER)
    assert second.mode is not Mode.GPU
    assert second.free_bytes[HOST] == first.free_bytes[HOST] - first.bytes_by_device[HOST]


def test_shared_memory_is_counted_once() -> None:
    alone, shared = place("30b", host(32, 32)), host(32, 32, unified=True)
    together = place("30b", shared, ctx_size=1048576)
    assert alone.mode is Mode.GPU
    assert sum(together.bytes_by_device.values()) <= together.free_bytes[HOST]


def test_a_mac_keeps_a_part_of_its_memory_for_itself() -> None:
    small, large = host(32, 32, kind="metal", unified=True), host(64, 64, kind="metal", unified=True)
    assert machine(small).gpus[0].room_bytes == 32 * GIB * 2 // 3
    assert machine(large).gpus[0].room_bytes == 48 * GIB
    assert machine(small).gpus[0].name == "MTL0"


def test_a_cpu_build_does_not_count_gpus() -> None:
    assert choose(model("4b"), machine(host(32, 80), backend="cpu"), SERVER).mode is Mode.CPU


def test_only_the_devices_named_are_used() -> None:
    facts = host(64, 24, 24)
    found = choose(model("30b"), machine(facts, devices=("CUDA1",)), SERVER)
    assert set(found.bytes_by_device) == {HOST, "CUDA1"}
    with pytest.raises(UsageError, match="cannot use device CUDA7"):
        machine(facts, devices=("CUDA7",))


def test_a_gpu_that_hides_its_memory_is_left_out_and_named() -> None:
    facts = Facts(
        system="Linux", machine="x86_64", ram_bytes=64 * GIB, ram_available_bytes=64 * GIB,
        gpus=(Gpu(index=0, kind="vulkan", name="v"),),
    )  # fmt: skip
    assert machine(facts).unmeasured == ("Vulkan0",)
    assert choose(model("4b"), machine(facts), SERVER).mode is Mode.CPU


def test_layers_are_dealt_by_room_and_every_layer_has_a_place() -> None:
    h, s = model_shape(model("30b")), Settings(ctx_size=16384)
    split = even_split(h, s, machine(host(64, 24, 12)), 53)
    assert sum(split.counts) == 53
    assert 1.6 < split.counts[0] / split.counts[1] < 2.4
    assert split.tensor_split == ",".join(map(str, split.counts))
    assert even_split(h, s, machine(host(64, 24)), 53).tensor_split == ""


@settings(max_examples=60, deadline=None)
@given(
    ram=st.floats(8, 256), gpus=st.lists(st.floats(2, 96), max_size=3), slots=st.integers(1, 8),
    ctx=st.sampled_from([4096, 32768, 262144, 1048576]), name=st.sampled_from(["4b", "30b", "120b"]),
)  # fmt: skip
def test_whatever_is_chosen_fits_every_device(ram: float, gpus: list[float], slots: int, ctx: int, name: str) -> None:
    try:
        found = place(name, host(ram, *gpus), parallel=slots, ctx_size=ctx)
    except FitError:
        return
    assert all(taken <= found.free_bytes[d] for d, taken in found.bytes_by_device.items())
    assert found.ctx_size <= ctx


def fits(shape: ModelShape, s: Settings, pools: Machine, split: Split) -> bool:
    """Whether every device has room for its part."""
    taken = bytes_by_device(shape, s, pools, split)
    taken[HOST] += shape.rs_sequence_bytes * s.parallel * min(s.ctx_checkpoints, 1)  # one checkpoint per slot
    if pools.unified:
        taken[HOST] = sum(taken.values())
    return all(taken[d.name] <= d.room_bytes for d in (pools.host, *pools.gpus))


def fits_somehow(name: str, facts: Facts, ctx: int) -> bool:
    """Whether any split fits, by trying all of them."""
    shape, pools = model_shape(model(name)), machine(facts)
    s = Settings(ctx_size=ctx)
    return any(fits(shape, s, pools, split) for split in all_splits(shape, len(pools.gpus)))


@settings(max_examples=25, deadline=None)
@given(
    ram=st.floats(1, 40), gpu=st.floats(1.5, 30), ctx=st.sampled_from([16384, 262144, 1048576]),
    name=st.sampled_from(["4b", "30b"]),
)  # fmt: skip
def test_what_is_refused_would_not_have_fitted(ram: float, gpu: float, ctx: int, name: str) -> None:
    facts = host(ram, gpu)
    try:
        place(name, facts, ctx_size=ctx, asked=("ctx_size",))
        fitted = True
    except FitError:
        fitted = False
    assert fitted == fits_somehow(name, facts, ctx)


@settings(max_examples=25, deadline=None)
@given(ram=st.floats(2, 30), one=st.floats(2, 8), two=st.floats(2, 8))
@example(ram=2.0, one=3.0, two=7.5)  # fits on the second GPU alone, without the copies for a pipeline
def test_what_two_gpus_are_refused_would_not_have_fitted(ram: float, one: float, two: float) -> None:
    facts = host(ram, one, two)
    try:
        place("4b", facts, ctx_size=262144, asked=("ctx_size",))
    except FitError:
        assert not fits_somehow("4b", facts, 262144)


def small(name: str, experts: list[int]) -> ModelShape:
    """A model of seven blocks: some of a true one, the experts of each scaled by a number."""
    shape = model_shape(model(name))
    blocks = shape.blocks[:6] + shape.blocks[-1:]
    return replace(
        shape,
        blocks=tuple(replace(b, expert_bytes=b.expert_bytes * n) for b, n in zip(blocks, experts, strict=True)),
    )


@settings(max_examples=400, deadline=None)
@given(
    rooms=st.lists(st.integers(0, 6000), min_size=1, max_size=3), ram=st.integers(500, 6000), unified=st.booleans(),
    ctx=st.sampled_from([4096, 262144]), name=st.sampled_from(["4b", "30b"]),
    experts=st.lists(st.integers(0, 3), min_size=7, max_size=7),
)  # fmt: skip
def test_a_split_is_found_wherever_one_fits(
    rooms: list[int], ram: int, unified: bool, ctx: int, name: str, experts: list[int]
) -> None:
    shape, s = small(name, experts), Settings(ctx_size=ctx, ctx_checkpoints=0, cache_ram_mib=0)
    pools = Machine(
        host=Device(name=HOST, label="", total_bytes=ram * MIB, room_bytes=ram * MIB),
        gpus=tuple(
            Device(name=f"CUDA{i}", label="", total_bytes=n * MIB, room_bytes=n * MIB) for i, n in enumerate(rooms)
        ),
        unified=unified,
    )
    try:
        fit.place(fit.FitRequest(shape=shape, settings=s, machine=pools, fixed=frozenset({"ctx_size"})))
    except FitError:
        assert not any(fits(shape, s, pools, split) for split in all_splits(shape, len(rooms)))


def all_splits(shape: ModelShape, n_gpus: int) -> Iterator[Split]:
    """Every way to deal the last layers to the GPUs in order; of all layers, also with experts in host memory."""
    n_all = len(shape.blocks) + 1
    n_moe = n_all if shape.expert_blocks else 0
    for counts in product(range(n_all + 1), repeat=n_gpus):
        if sum(counts) <= n_all:
            yield Split(counts=counts)
        if sum(counts) == n_all:
            yield from (Split(counts=counts, n_cpu_moe=n) for n in range(1, n_moe))


def test_a_host_that_is_too_small_alone_is_helped_by_the_gpu() -> None:
    found = place("4b", host(5, 6), ctx_size=262144, asked=("ctx_size",))
    assert found.mode is Mode.SOME_LAYERS


@settings(max_examples=40, deadline=None)
@given(n_gpu_layers=st.integers(0, 53), n_cpu_moe=st.integers(0, 52))
def test_no_byte_of_a_model_is_lost_between_devices(n_gpu_layers: int, n_cpu_moe: int) -> None:
    h, s, pools = model_shape(model("30b")), Settings(ctx_size=32768, parallel=2), machine(host(64, 24, 24))
    split = even_split(h, s, pools, n_gpu_layers, n_cpu_moe if n_gpu_layers else 0)
    everywhere = sum(bytes_by_device(h, s, pools, split).values())
    on_cpu = sum(bytes_by_device(h, s, pools, Split()).values())
    assert everywhere >= on_cpu - bytes_by_device(h, s, pools, Split())[HOST] + model("30b").weight_bytes


def test_the_recommended_line_is_the_recipes_own_where_it_fits() -> None:
    pools = machine(host(64, 24))
    rows = [row(q, model("30b", q), pools, SERVER, [16384, 262144]) for q in ("Q4_K", "Q8_0", "BF16")]
    best = recommended(rows, 262144, preferred="Q4_K")
    assert best is not None
    assert best.quant == "Q4_K"
    larger = recommended(rows, 262144, preferred="BF16")
    assert larger is not None
    assert larger.quant == "Q4_K", "all on the GPU is better than the better quant spread out"


def test_nothing_is_recommended_where_nothing_fits() -> None:
    rows = [row("Q8_0", model("120b", "Q8_0"), machine(host(16)), SERVER, [16384])]
    assert recommended(rows, 16384, preferred="Q8_0") is None
    assert rows[0].largest_context == 0
    assert rows[0].cells[0].why_not.startswith("host needs")


def test_the_largest_context_fits_and_one_step_more_does_not() -> None:
    found = row("Q4_K", model("30b"), machine(host(24)), SERVER, [16384])
    assert 65536 < found.largest_context < 1048576
    place("30b", host(24), ctx_size=found.largest_context, asked=("ctx_size",))
    with pytest.raises(FitError):
        place("30b", host(24), ctx_size=found.largest_context + 1024, asked=("ctx_size",))
