"""Bytes per device for a given split of the layers, as llama.cpp places them. Pure.

llama.cpp counts layers from the end: with `--n-gpu-layers K` the last K of all blocks plus the output layer are on
GPUs, split in order by `--tensor-split`; the token embedding stays in host memory (`src/llama-model.cpp`,
load_tensors). `--n-cpu-moe N` keeps the experts of the first N blocks in host memory. A block's KV cache and
recurrent state are on the device of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_ops.memory.machine import Machine
from nemotron_ops.memory.model import Settings, compute_bytes, kv_row_bytes
from nemotron_ops.memory.model_shape import ModelShape
from nemotron_ops.policy import HOST

SCHEDULER_COPIES = 4  # inputs per GPU where several GPUs work as a pipeline (ggml's GGML_SCHED_MAX_COPIES)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The devices of the layers. `counts`: layers per GPU, including the output layer; empty for CPU only."""

    counts: tuple[int, ...] = ()
    n_cpu_moe: int = 0

    @property
    def n_gpu_layers(self) -> int:
        return sum(self.counts)

    @property
    def tensor_split(self) -> str:
        """The value of --tensor-split, or "" where there is nothing to split."""
        return ",".join(map(str, self.counts)) if sum(n > 0 for n in self.counts) > 1 else ""


def bytes_by_device(shape: ModelShape, s: Settings, machine: Machine, split: Split) -> dict[str, int]:
    """Bytes per device once the model is ready; host memory without checkpoints and prompt cache."""
    blocks = block_bytes(shape, s)
    names = _devices(len(shape.blocks) + 1, machine, split)
    taken = {HOST: shape.input_bytes + 4 * shape.n_vocab * s.parallel, **{g.name: 0 for g in machine.gpus}}
    for i, block in enumerate(blocks):
        on_host = i < split.n_cpu_moe
        taken[HOST if on_host else names[i]] += shape.blocks[i].expert_bytes
        taken[names[i]] += block - shape.blocks[i].expert_bytes
    taken[names[-1]] += shape.output_bytes + (shape.input_bytes if shape.tied and names[-1] != HOST else 0)
    _add_scratch(shape, s, split, names, taken)
    taken[names[-1]] += s.lora_bytes + s.mmproj_bytes
    return taken


def block_bytes(shape: ModelShape, s: Settings) -> list[int]:
    """Weights, KV and recurrent state of every block."""
    found = []
    for i, block in enumerate(shape.blocks):
        idle = i >= len(shape.trunk) and not s.draft_tokens  # an unused MTP block keeps no cache
        kv = 0 if idle else s.streams * s.cells * kv_row_bytes(shape, s, i)
        rs = s.parallel * (1 + s.draft_tokens) * shape.rs_layer_bytes if block.recurrent else 0
        found.append(block.dense_bytes + block.expert_bytes + kv + rs)
    return found


def _devices(n_layers: int, machine: Machine, split: Split) -> list[str]:
    """The device of every block, and of the output layer as the last."""
    names = [HOST] * (n_layers - split.n_gpu_layers)
    for gpu, count in zip(machine.gpus, split.counts, strict=False):
        names += [gpu.name] * count
    return names


def _add_scratch(shape: ModelShape, s: Settings, split: Split, names: Sequence[str], taken: dict[str, int]) -> None:
    """Add compute buffers: the host's own, or only its inputs for the GPUs where they compute everything."""
    used = {n for n in names if n != HOST}
    all_on_gpu = used and HOST not in names and not split.n_cpu_moe
    tokens = min(s.ubatch_size, s.batch_size, s.cells * s.streams)
    taken[HOST] += _mask_bytes(s) + 4 * tokens * shape.n_embd if all_on_gpu else _compute(shape, s)
    for name in used:
        taken[name] += _gpu_scratch(shape, s, split.n_cpu_moe, len(used))


def copied_expert_bytes(shape: ModelShape, n_cpu_moe: int) -> int:
    """The experts that a GPU copies from host memory at once, one block's: with more blocks there, never fewer."""
    return max((b.expert_bytes for b in shape.blocks[:n_cpu_moe]), default=0)


def _gpu_scratch(shape: ModelShape, s: Settings, n_cpu_moe: int, n_gpus: int) -> int:
    """Compute buffer of one GPU. A GPU copies the experts that are in host memory, one block at a time."""
    copied = copied_expert_bytes(shape, n_cpu_moe)
    return _compute(shape, s) + copied + (_mask_bytes(s) * (SCHEDULER_COPIES - 1) if n_gpus > 1 else 0)


def _compute(shape: ModelShape, s: Settings) -> int:
    return compute_bytes(shape, s) * (2 if s.draft_tokens else 1)


def _mask_bytes(s: Settings) -> int:
    tokens = min(s.ubatch_size, s.batch_size, s.cells * s.streams)
    return tokens * s.cells * (2 if s.flash_attn else 4)


def layer_splits(
    shape: ModelShape, s: Settings, machine: Machine, n_gpu_layers: int, n_cpu_moe: int = 0
) -> tuple[Split, ...]:
    """Splits of `n_gpu_layers` (from the end, with the output layer) over the GPUs, the even one first.

    If any split of these layers fits the GPUs, one of these does. Filling GPU after GPU is exact where several compute:
    no other split reaches further with the first GPUs. One GPU alone needs less scratch memory, so each is tried.
    """
    if not machine.gpus or n_gpu_layers <= 0:
        return (Split(n_cpu_moe=0),)
    sizes, n = _layer_bytes(shape, s, n_cpu_moe)[-n_gpu_layers:], len(machine.gpus)
    scratch = _gpu_scratch(shape, s, n_cpu_moe, n)
    rooms = [g.room_bytes - scratch for g in machine.gpus]
    alone = [tuple(len(sizes) if i == j else 0 for j in range(n)) for i in range(n)]
    counts = (_in_proportion(sizes, [max(r, 0) for r in rooms]), _one_after_the_other(sizes, rooms), *alone)
    return tuple(Split(counts=c, n_cpu_moe=n_cpu_moe) for c in dict.fromkeys(counts))


def even_split(shape: ModelShape, s: Settings, machine: Machine, n_gpu_layers: int, n_cpu_moe: int = 0) -> Split:
    """The even split: each GPU gets bytes in proportion to its room."""
    return layer_splits(shape, s, machine, n_gpu_layers, n_cpu_moe)[0]


def _in_proportion(sizes: Sequence[int], rooms: Sequence[int]) -> tuple[int, ...]:
    counts, at, passed = [0] * len(rooms), 0, 0.0
    total, room = sum(sizes) or 1, sum(rooms) or 1
    edge = rooms[0] / room
    for size in sizes:
        while at < len(rooms) - 1 and (passed + size / 2) / total > edge:
            at += 1
            edge += rooms[at] / room
        counts[at] += 1
        passed += size
    return tuple(counts)


def _one_after_the_other(sizes: Sequence[int], rooms: Sequence[int]) -> tuple[int, ...]:
    """Fill each GPU before the next; the remaining layers go to the last. A GPU with negative room gets none."""
    counts, at, taken = [0] * len(rooms), 0, 0
    for size in sizes:
        while at < len(rooms) - 1 and taken + size > rooms[at]:
            at, taken = at + 1, 0
        counts[at] += 1
        taken += size
    return tuple(counts)


def _layer_bytes(shape: ModelShape, s: Settings, n_cpu_moe: int) -> list[int]:
    """Bytes that each block, and last the output layer, takes on its GPU."""
    blocks = [n - (shape.blocks[i].expert_bytes if i < n_cpu_moe else 0) for i, n in enumerate(block_bytes(shape, s))]
    output = shape.output_bytes + (shape.input_bytes if shape.tied else 0) + s.lora_bytes + s.mmproj_bytes
    return [*blocks, output]
