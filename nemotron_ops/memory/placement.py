"""Which bytes go to which device for a given split, as llama.cpp would put them. Pure.

llama.cpp counts layers from the end: with `--n-gpu-layers K` the last K of all blocks plus the output layer are on
GPUs, dealt out in order by `--tensor-split`; the token embedding stays in host memory (`src/llama-model.cpp`,
load_tensors). `--n-cpu-moe N` keeps the experts of the first N blocks in host memory. A block's KV cache and
recurrent state live where the block does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_ops.memory.hyper import Hyper
from nemotron_ops.memory.machine import Machine
from nemotron_ops.memory.model import Settings, compute_bytes, kv_row_bytes
from nemotron_ops.policy import HOST

SCHEDULER_COPIES = 4  # inputs per GPU where several GPUs work as a pipeline (ggml's GGML_SCHED_MAX_COPIES)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where layers go. `counts`: layers per GPU, the output layer counted as one; empty for CPU only."""

    counts: tuple[int, ...] = ()
    n_cpu_moe: int = 0

    @property
    def n_gpu_layers(self) -> int:
        return sum(self.counts)

    @property
    def tensor_split(self) -> str:
        """The value of --tensor-split, or "" where there is nothing to split."""
        return ",".join(map(str, self.counts)) if sum(n > 0 for n in self.counts) > 1 else ""


def bytes_by_device(h: Hyper, s: Settings, machine: Machine, split: Split) -> dict[str, int]:
    """Bytes per device once the model is ready; host memory without checkpoints and prompt cache, which come later."""
    blocks = block_bytes(h, s)
    names = _devices(len(h.blocks) + 1, machine, split)
    taken = {HOST: h.input_bytes + 4 * h.n_vocab * s.parallel, **{g.name: 0 for g in machine.gpus}}
    for i, block in enumerate(blocks):
        on_host = i < split.n_cpu_moe
        taken[HOST if on_host else names[i]] += h.blocks[i].expert_bytes
        taken[names[i]] += block - h.blocks[i].expert_bytes
    taken[names[-1]] += h.output_bytes + (h.input_bytes if h.tied and names[-1] != HOST else 0)
    _add_scratch(h, s, split, names, taken)
    taken[names[-1]] += s.lora_bytes + s.mmproj_bytes
    return taken


def block_bytes(h: Hyper, s: Settings) -> list[int]:
    """Weights, KV and recurrent state of every block."""
    found = []
    for i, block in enumerate(h.blocks):
        idle = i >= len(h.trunk) and not s.draft_tokens  # an MTP block nobody asked for keeps no cache
        kv = 0 if idle else s.streams * s.cells * kv_row_bytes(h, s, i)
        rs = s.parallel * (1 + s.draft_tokens) * h.rs_layer_bytes if block.recurrent else 0
        found.append(block.dense_bytes + block.expert_bytes + kv + rs)
    return found


def _devices(n_layers: int, machine: Machine, split: Split) -> list[str]:
    """The device of every block, and of the output layer as the last."""
    names = [HOST] * (n_layers - split.n_gpu_layers)
    for gpu, count in zip(machine.gpus, split.counts, strict=False):
        names += [gpu.name] * count
    return names


def _add_scratch(h: Hyper, s: Settings, split: Split, names: Sequence[str], taken: dict[str, int]) -> None:
    """Compute buffers: the host's own, or only what it feeds the GPUs with where they do everything."""
    used = {n for n in names if n != HOST}
    all_on_gpu = used and HOST not in names and not split.n_cpu_moe
    tokens = min(s.ubatch_size, s.batch_size, s.cells * s.streams)
    taken[HOST] += _mask_bytes(s) + 4 * tokens * h.n_embd if all_on_gpu else _compute(h, s)
    for name in used:
        taken[name] += _gpu_scratch(h, s, split.n_cpu_moe, len(used))


def _gpu_scratch(h: Hyper, s: Settings, n_cpu_moe: int, n_gpus: int) -> int:
    """Compute buffer of one GPU. One that computes with experts of the host first copies those of a block over."""
    copied = max((b.expert_bytes for b in h.blocks[:n_cpu_moe]), default=0)
    return _compute(h, s) + copied + (_mask_bytes(s) * (SCHEDULER_COPIES - 1) if n_gpus > 1 else 0)


def _compute(h: Hyper, s: Settings) -> int:
    return compute_bytes(h, s) * (2 if s.draft_tokens else 1)


def _mask_bytes(s: Settings) -> int:
    tokens = min(s.ubatch_size, s.batch_size, s.cells * s.streams)
    return tokens * s.cells * (2 if s.flash_attn else 4)


def deals(h: Hyper, s: Settings, machine: Machine, n_gpu_layers: int, n_cpu_moe: int = 0) -> tuple[Split, ...]:
    """Ways to deal `n_gpu_layers` (from the end, the output layer included) to the GPUs, the even one first."""
    if not machine.gpus or n_gpu_layers <= 0:
        return (Split(n_cpu_moe=0),)
    sizes = _layer_bytes(h, s, n_cpu_moe)[-n_gpu_layers:]
    scratch = _gpu_scratch(h, s, n_cpu_moe, len(machine.gpus))
    rooms = [max(g.room_bytes - scratch, 0) for g in machine.gpus]
    counts = dict.fromkeys((_in_proportion(sizes, rooms), _one_after_the_other(sizes, rooms)))
    return tuple(Split(counts=c, n_cpu_moe=n_cpu_moe) for c in counts)


def deal(h: Hyper, s: Settings, machine: Machine, n_gpu_layers: int, n_cpu_moe: int = 0) -> Split:
    """The even way to deal layers to GPUs: each gets bytes in proportion to its room."""
    return deals(h, s, machine, n_gpu_layers, n_cpu_moe)[0]


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
    """Fill each GPU before the next; what is left over goes to the last."""
    counts, at, taken = [0] * len(rooms), 0, 0
    for size in sizes:
        while at < len(rooms) - 1 and taken + size > rooms[at]:
            at, taken = at + 1, 0
        counts[at] += 1
        taken += size
    return tuple(counts)


def _layer_bytes(h: Hyper, s: Settings, n_cpu_moe: int) -> list[int]:
    """What each block, and the output layer as the last, puts on its GPU."""
    blocks = [n - (h.blocks[i].expert_bytes if i < n_cpu_moe else 0) for i, n in enumerate(block_bytes(h, s))]
    output = h.output_bytes + (h.input_bytes if h.tied else 0) + s.lora_bytes + s.mmproj_bytes
    return [*blocks, output]
