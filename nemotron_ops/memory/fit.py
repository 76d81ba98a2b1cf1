"""What fits where: the best placement of a model on a machine, or the nearest that would fit. Pure.

Tried in this order, each with the context asked for and, where it was not asked for by hand, with less:

    all on GPU  →  experts on CPU (--n-cpu-moe, as few as possible)  →  as many layers on GPU as fit  →  CPU only

Host memory that grows later (context checkpoints, prompt cache) is capped to what is left over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from nemotron_ops.errors import FitError
from nemotron_ops.host.facts import Facts
from nemotron_ops.memory.hyper import Hyper, hyper
from nemotron_ops.memory.machine import Device, Machine, machine
from nemotron_ops.memory.model import MIB, Estimate, Settings, estimate_hyper, settings_from, weight_bytes, with_context
from nemotron_ops.memory.placement import Split, bytes_by_device, deals
from nemotron_ops.models.gguf import Header
from nemotron_ops.policy import HOST

CONTEXT_STEP = 1024
CACHE_STEP_MIB = 256
GOOD_CONTEXT = 65536  # all on GPU with this much is better than experts on CPU with more
SMALL_CONTEXT = 4096


class Mode(StrEnum):
    """How a model is spread over a machine."""

    GPU = "all on GPU"
    EXPERTS_ON_CPU = "experts on CPU"
    SOME_LAYERS = "some layers on GPU"
    CPU = "CPU only"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A choice that fits: flags for llama-server, and the bytes each device will take at most.

    `n_gpu_layers` is None where no GPU is used, `tensor_split` empty where there is nothing to split. `free_bytes`
    is the room each device had.
    """

    mode: Mode
    ctx_size: int
    n_gpu_layers: int | None
    n_cpu_moe: int
    tensor_split: str
    ctx_checkpoints: int
    cache_ram_mib: int
    bytes_by_device: Mapping[str, int]
    free_bytes: Mapping[str, int]
    why: str
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Why a placement does not fit: the device that lacks most."""

    device: Device
    needs_bytes: int

    def __str__(self) -> str:
        needs, room = self.needs_bytes / 1e9, self.device.room_bytes / 1e9
        return f"{self.device.name} needs {needs:.1f} GB, has {room:.1f} GB to give"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A model, settings and a machine; `fixed` names the settings that were asked for by hand."""

    hyper: Hyper
    settings: Settings
    machine: Machine
    fixed: frozenset[str] = frozenset()
    n_gpu_layers: int | None = None  # where asked for: this many, no more and no less
    n_cpu_moe: int | None = None


def choose(
    header: Header,
    facts: Facts,
    server: Mapping[str, Any],
    *,
    asked: Collection[str] = (),
    backend: str = "",
    devices: Collection[str] = (),
    used_bytes: Mapping[str, int] | None = None,
    lora_bytes: int = 0,
    mmproj_bytes: int = 0,
) -> Placement:
    """The best placement of the model with `header` on the machine of `facts`.

    `server` holds llama-server's flags by field name; those in `asked` are kept as they are, others may be lowered.
    `used_bytes` is what other models of ours take, by device: add each placement's `bytes_by_device` to it.
    Raises FitError with the nearest that would fit, UnknownArchitectureError where nothing can be said.
    """
    pools = machine(facts, backend=backend, devices=devices, used_bytes=used_bytes)
    settings = settings_from(server, lora_bytes=lora_bytes, mmproj_bytes=mmproj_bytes)
    return answer(question(hyper(header), settings, pools, server, asked))


def question(h: Hyper, s: Settings, pools: Machine, server: Mapping[str, Any], asked: Collection[str] = ()) -> Question:
    """The Question that flags ask: `n_gpu_layers` "all" means all, "auto" and None leave the choice here."""
    layers = server.get("n_gpu_layers") if "n_gpu_layers" in asked else None
    n_all = len(h.blocks) + 1
    by_word = {"all": n_all, "auto": None, "": None, "-1": None, None: None}
    n_gpu_layers = by_word[layers] if layers in by_word else min(int(layers), n_all)  # type: ignore[arg-type]
    n_cpu_moe = server.get("n_cpu_moe") if "n_cpu_moe" in asked else None
    return Question(
        hyper=h,
        settings=s,
        machine=pools,
        fixed=frozenset(asked),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=None if n_cpu_moe is None else int(n_cpu_moe),
    )


def answer(q: Question) -> Placement:
    """The best placement for `q`. Raises FitError with the nearest that would fit."""
    modes = usable_modes(q)
    for mode in modes:
        if found := fit(q, mode):
            return found
        floor = GOOD_CONTEXT if mode is Mode.GPU and len(modes) > 1 else SMALL_CONTEXT
        if "ctx_size" not in q.fixed and (smaller := largest_context(q, mode, upto=q.settings.ctx_size)) >= floor:
            lowered = fit(replace(q, settings=with_context(q.settings, smaller)), mode)
            if lowered:
                return replace(lowered, why=f"{lowered.why}; context lowered from {q.settings.ctx_size:,} to fit")
    raise _refusal(q, modes)


def usable_modes(q: Question) -> list[Mode]:
    """The modes that make sense for this model, machine and what was asked for, best first."""
    if not q.machine.gpus or q.n_gpu_layers == 0:
        return [Mode.CPU]
    if q.n_gpu_layers is not None:
        whole = q.n_gpu_layers > len(q.hyper.blocks)
        return [Mode.EXPERTS_ON_CPU if q.n_cpu_moe else Mode.GPU] if whole else [Mode.SOME_LAYERS]
    if q.n_cpu_moe:
        return [Mode.EXPERTS_ON_CPU]
    experts = [Mode.EXPERTS_ON_CPU] if q.hyper.expert_blocks and q.n_cpu_moe is None else []
    return [Mode.GPU, *experts, Mode.SOME_LAYERS, Mode.CPU]


def fit(q: Question, mode: Mode) -> Placement | None:
    """The placement of `q` in this mode, or None if it does not fit."""
    split = _split(q, mode)
    if split is None or shortage(q, split):
        return None
    return _placement(q, mode, split)


def why_not(q: Question, mode: Mode) -> str:
    """In a few words, what is in the way of `fit(q, mode)`; "" if it fits."""
    if fit(q, mode):
        return ""
    lacking = shortage(q, _most(q, mode))
    return str(lacking) if lacking else "no split of its layers fits"


def largest_context(q: Question, mode: Mode, *, upto: int) -> int:
    """The largest context, a multiple of 1024 tokens, that fits in this mode; 0 if none does."""
    return CONTEXT_STEP * _greatest(
        upto // CONTEXT_STEP,
        lambda n: n > 0 and fit(replace(q, settings=with_context(q.settings, n * CONTEXT_STEP)), mode) is not None,
    )


def shortage(q: Question, split: Split) -> Shortage | None:
    """The device that lacks most with `split`, or None if all have enough."""
    return _worst(q, split, (q.machine.host, *q.machine.gpus))


def _worst(q: Question, split: Split, pools: tuple[Device, ...]) -> Shortage | None:
    """The one of `pools` that lacks most with `split`."""
    taken = bytes_by_device(q.hyper, q.settings, q.machine, split)
    taken[HOST] += _least_growth(q)
    if q.machine.unified:
        taken[HOST] = sum(taken.values())
    short = [Shortage(device=p, needs_bytes=taken[p.name]) for p in pools if taken[p.name] > p.room_bytes]
    return max(short, key=lambda s: s.needs_bytes - s.device.room_bytes, default=None)


def _split(q: Question, mode: Mode) -> Split | None:
    """The split of this mode that keeps most on the GPUs without asking too much of them; None if there is none."""
    n_all = len(q.hyper.blocks) + 1
    match mode:
        case Mode.CPU:
            return Split()
        case Mode.GPU:
            return _best_deal(q, n_all, 0)
        case Mode.EXPERTS_ON_CPU:
            if q.n_cpu_moe is not None:
                return _best_deal(q, n_all, q.n_cpu_moe)
            kept = _greatest(n_all - 1, lambda n: _gpus_hold(q, n_all, n_all - 1 - n))
            return _best_deal(q, n_all, n_all - 1 - kept)
        case Mode.SOME_LAYERS:
            if q.n_gpu_layers is not None:
                return _best_deal(q, q.n_gpu_layers, q.n_cpu_moe or 0)
            layers = _greatest(n_all - 1, lambda n: n > 0 and _gpus_hold(q, n, 0))
            return _best_deal(q, layers, 0) if layers else None


def _most(q: Question, mode: Mode) -> Split:
    """The split that leaves the GPUs least in this mode, to say what is missing even then."""
    n_all = len(q.hyper.blocks) + 1
    if mode is Mode.EXPERTS_ON_CPU:
        return _best_deal(q, n_all, n_all - 1 if q.n_cpu_moe is None else q.n_cpu_moe)
    if mode is Mode.SOME_LAYERS:
        return _best_deal(q, q.n_gpu_layers or 1, 0)
    return _best_deal(q, n_all, 0) if mode is Mode.GPU else Split()


def _best_deal(q: Question, n_gpu_layers: int, n_cpu_moe: int) -> Split:
    """The even deal if the GPUs can hold it, else another one they can hold, else the even one."""
    ways = deals(q.hyper, q.settings, q.machine, n_gpu_layers, n_cpu_moe)
    return next((w for w in ways if _worst(q, w, q.machine.gpus) is None), ways[0])


def _gpus_hold(q: Question, n_gpu_layers: int, n_cpu_moe: int) -> bool:
    """Whether the GPUs have room for their part, whatever the host lacks."""
    return _worst(q, _best_deal(q, n_gpu_layers, n_cpu_moe), q.machine.gpus) is None


def _greatest(top: int, holds: Callable[[int], bool]) -> int:
    """The greatest n in 0..top for which `holds`, which holds up to some point and not beyond; 0 if for none."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _least_growth(q: Question) -> int:
    """Host memory for checkpoints and prompt cache at the lowest caps allowed."""
    checkpoints, cache_mib = _least_caps(q)
    return checkpoints * q.hyper.rs_sequence_bytes * q.settings.parallel + cache_mib * MIB


def _least_caps(q: Question) -> tuple[int, int]:
    s = q.settings
    checkpoints = s.ctx_checkpoints if "ctx_checkpoints" in q.fixed else min(s.ctx_checkpoints, 1)
    return checkpoints, max(s.cache_ram_mib, 0) if "cache_ram_mib" in q.fixed else 0


def _caps(q: Question, spare: int) -> tuple[int, int]:
    """Context checkpoints and prompt cache (MiB) within `spare` bytes: checkpoints first, they save more."""
    s = q.settings
    each = q.hyper.rs_sequence_bytes * s.parallel
    least_checkpoints, least_cache = _least_caps(q)
    left = spare - least_cache * MIB
    checkpoints = min(s.ctx_checkpoints, max(left // each, least_checkpoints)) if each else s.ctx_checkpoints
    left -= (checkpoints * each) - least_cache * MIB
    cache = min(max(s.cache_ram_mib, 0), left // MIB // CACHE_STEP_MIB * CACHE_STEP_MIB)
    return checkpoints, max(cache, least_cache)


def _placement(q: Question, mode: Mode, split: Split) -> Placement:
    taken = bytes_by_device(q.hyper, q.settings, q.machine, split)
    on_gpus = sum(n for name, n in taken.items() if name != HOST) if q.machine.unified else 0
    checkpoints, cache_mib = _caps(q, q.machine.host.room_bytes - taken[HOST] - on_gpus)
    capped = replace(q.settings, ctx_checkpoints=checkpoints, cache_ram_mib=cache_mib)
    guess = estimate_hyper(q.hyper, capped)
    taken[HOST] += guess.checkpoints_max + guess.prompt_cache_max
    pools = (q.machine.host, *q.machine.gpus)
    return Placement(
        mode=mode,
        ctx_size=q.settings.ctx_size,
        n_gpu_layers=None if mode is Mode.CPU and not q.machine.gpus else split.n_gpu_layers,
        n_cpu_moe=split.n_cpu_moe,
        tensor_split=split.tensor_split,
        ctx_checkpoints=checkpoints,
        cache_ram_mib=cache_mib,
        bytes_by_device=taken,
        free_bytes={p.name: p.room_bytes for p in pools},
        why=_why(q, mode, split),
        estimate=guess,
    )


def _why(q: Question, mode: Mode, split: Split) -> str:
    match mode:
        case Mode.GPU:
            return "everything fits on the GPU" if len(q.machine.gpus) == 1 else "everything fits on the GPUs"
        case Mode.EXPERTS_ON_CPU:
            return f"experts of the first {split.n_cpu_moe} blocks stay in host memory, the rest is on the GPU"
        case Mode.SOME_LAYERS:
            return f"{split.n_gpu_layers} of {len(q.hyper.blocks) + 1} layers fit on the GPU"
        case Mode.CPU:
            return "no GPU to use" if not q.machine.gpus else "too little GPU memory for any useful part"


def _refusal(q: Question, modes: Collection[Mode]) -> FitError:
    last = list(modes)[-1]
    lacking = shortage(q, _most(q, last))
    nearest = max(largest_context(q, mode, upto=q.settings.ctx_size) for mode in modes)
    weights = weight_bytes(q.hyper)
    if nearest:
        hint = f"a context of {nearest:,} tokens would fit: --ctx-size {nearest}"
    elif lacking and weights > sum(d.room_bytes for d in (q.machine.host, *q.machine.gpus)):
        hint = f"its weights alone take {weights / 1e9:.1f} GB: take a smaller quant or model; see `nemotron-ops plan`"
    else:
        hint = "try fewer slots (--parallel 1) or a smaller quant; `nemotron-ops plan` shows what fits"
    return FitError(f"cannot fit the model with a context of {q.settings.ctx_size:,} tokens: {lacking}", hint=hint)
