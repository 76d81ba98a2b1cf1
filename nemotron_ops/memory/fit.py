"""Places a model on a machine: the best placement that fits, or the nearest one that would. Pure.

Modes are tried in this order, each with the given context and, unless that is fixed, with a smaller one:

    all on GPU  →  experts on CPU (--n-cpu-moe, as few as possible)  →  as many layers on GPU as fit  →  CPU only

Host memory that grows later (context checkpoints, prompt cache) is capped to the memory that remains.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Any

from nemotron_ops.errors import FitError
from nemotron_ops.memory.machine import Device, Machine
from nemotron_ops.memory.model import MIB, Estimate, Settings, estimate_shape, settings_from, weight_bytes, with_context
from nemotron_ops.memory.model_shape import ModelShape, model_shape
from nemotron_ops.memory.placement import Split, bytes_by_device, copied_expert_bytes, layer_splits
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
    """A placement that fits: flags for llama-server, and the most bytes that each device will use.

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
    """Why a placement does not fit: the device with the largest shortage."""

    device: Device
    needs_bytes: int

    def __str__(self) -> str:
        needs, room = self.needs_bytes / 1e9, self.device.room_bytes / 1e9
        return f"{self.device.name} needs {needs:.1f} GB, has {room:.1f} GB to give"


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """A model to be placed on a machine with given settings; `fixed` names the settings that must stay as they are."""

    shape: ModelShape
    settings: Settings
    machine: Machine
    fixed: frozenset[str] = frozenset()
    n_gpu_layers: int | None = None  # exactly this many, where given
    n_cpu_moe: int | None = None


def choose(
    header: Header,
    pools: Machine,
    server: Mapping[str, Any],
    *,
    asked: Collection[str] = (),
    lora_bytes: int = 0,
    mmproj_bytes: int = 0,
) -> Placement:
    """The best placement of the model with `header` in the memory of `pools`.

    `server` holds llama-server's flags by field name; those in `asked` are kept as they are, others may be lowered.
    Raises FitError with the nearest that would fit, UnknownArchitectureError where the formula does not hold.
    """
    settings = settings_from(server, lora_bytes=lora_bytes, mmproj_bytes=mmproj_bytes)
    return place(fit_request(model_shape(header), settings, pools, server, asked))


def fit_request(
    shape: ModelShape, s: Settings, pools: Machine, server: Mapping[str, Any], asked: Collection[str] = ()
) -> FitRequest:
    """The request behind llama-server's flags: `n_gpu_layers` "auto" or None leaves the number of layers open."""
    layers = server.get("n_gpu_layers") if "n_gpu_layers" in asked else None
    n_all = len(shape.blocks) + 1
    by_word = {"all": n_all, "auto": None, "": None, "-1": None, None: None}
    n_gpu_layers = by_word[layers] if layers in by_word else min(int(layers), n_all)  # type: ignore[arg-type]
    n_cpu_moe = server.get("n_cpu_moe") if "n_cpu_moe" in asked else None
    return FitRequest(
        shape=shape,
        settings=s,
        machine=pools,
        fixed=frozenset(asked),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=None if n_cpu_moe is None else int(n_cpu_moe),
    )


def place(request: FitRequest) -> Placement:
    """The best placement for `request`. Raises FitError with the nearest that would fit."""
    modes = usable_modes(request)
    for mode in modes:
        if found := fit(request, mode):
            return found
        floor = GOOD_CONTEXT if mode is Mode.GPU and len(modes) > 1 else SMALL_CONTEXT
        wanted = request.settings.ctx_size
        if "ctx_size" not in request.fixed and (smaller := largest_context(request, mode, upto=wanted)) >= floor:
            lowered = fit(at_context(request, smaller), mode)
            if lowered:
                return replace(lowered, why=f"{lowered.why}; context lowered from {wanted:,} to fit")
    raise _refusal(request, modes)


def usable_modes(request: FitRequest) -> list[Mode]:
    """The modes possible for this model, machine and fixed settings, best first."""
    if not request.machine.gpus or request.n_gpu_layers == 0:
        return [Mode.CPU]
    if request.n_gpu_layers is not None:
        whole = request.n_gpu_layers > len(request.shape.blocks)
        return [Mode.EXPERTS_ON_CPU if request.n_cpu_moe else Mode.GPU] if whole else [Mode.SOME_LAYERS]
    if request.n_cpu_moe:
        return [Mode.EXPERTS_ON_CPU]
    experts = [Mode.EXPERTS_ON_CPU] if request.shape.expert_blocks and request.n_cpu_moe is None else []
    return [Mode.GPU, *experts, Mode.SOME_LAYERS, Mode.CPU]


def fit(request: FitRequest, mode: Mode) -> Placement | None:
    """The placement of `request` in this mode, or None if it does not fit."""
    split = _split(request, mode)
    if split is None or shortage(request, split):
        return None
    return _placement(request, mode, split)


def why_not(request: FitRequest, mode: Mode) -> str:
    """Why the model does not fit in this mode, in a few words; "" if it fits."""
    if fit(request, mode):
        return ""
    lacking = shortage(request, _least_on_gpus(request, mode))
    return str(lacking) if lacking else "no split of its layers fits"


def largest_context(request: FitRequest, mode: Mode, *, upto: int) -> int:
    """The largest context, a multiple of 1024 tokens, that fits in this mode; 0 if none does."""

    def fits(steps: int) -> bool:
        return steps > 0 and fit(at_context(request, steps * CONTEXT_STEP), mode) is not None

    return CONTEXT_STEP * _greatest(upto // CONTEXT_STEP, fits)


def at_context(request: FitRequest, ctx_size: int) -> FitRequest:
    """`request` with another context."""
    return replace(request, settings=with_context(request.settings, ctx_size))


def shortage(request: FitRequest, split: Split) -> Shortage | None:
    """The largest shortage of any device with `split`, or None if all have enough."""
    return _worst(request, split, (request.machine.host, *request.machine.gpus))


def _worst(request: FitRequest, split: Split, pools: tuple[Device, ...]) -> Shortage | None:
    """The largest shortage among `pools` with `split`."""
    taken = bytes_by_device(request.shape, request.settings, request.machine, split)
    taken[HOST] += _least_growth(request)
    if request.machine.unified:
        taken[HOST] = sum(taken.values())
    short = [Shortage(device=p, needs_bytes=taken[p.name]) for p in pools if taken[p.name] > p.room_bytes]
    return max(short, key=lambda s: s.needs_bytes - s.device.room_bytes, default=None)


def _split(request: FitRequest, mode: Mode) -> Split | None:
    """The split of this mode that keeps most layers on the GPUs within their memory; None if there is none."""
    n_all = len(request.shape.blocks) + 1
    match mode:
        case Mode.CPU:
            return Split()
        case Mode.GPU:
            return _best_split(request, n_all, 0)
        case Mode.EXPERTS_ON_CPU:
            if request.n_cpu_moe is not None:
                return _best_split(request, n_all, request.n_cpu_moe)
            return _best_split(request, n_all, _fewest_on_cpu(request, n_all))
        case Mode.SOME_LAYERS:
            if request.n_gpu_layers is not None:
                return _best_split(request, request.n_gpu_layers, request.n_cpu_moe or 0)
            layers = _greatest(n_all - 1, lambda n: n > 0 and _gpus_hold(request, n, 0))
            return _best_split(request, layers, 0) if layers else None


def _fewest_on_cpu(request: FitRequest, n_all: int) -> int:
    """The fewest blocks whose experts must stay in host memory for the GPUs to hold the rest; all if none suffice.

    A GPU copies the largest of these blocks, so one more block may ask more of the GPUs. Among numbers of blocks with
    the same largest one, a greater number never does.
    """

    def hold(n: int) -> bool:
        return _gpus_hold(request, n_all, n)

    copies = [copied_expert_bytes(request.shape, n) for n in range(n_all)]
    for _, same in groupby(range(n_all), key=copies.__getitem__):
        numbers = list(same)
        if hold(numbers[-1]):
            return numbers[bisect_left(numbers, True, key=hold)]
    return n_all - 1


def _least_on_gpus(request: FitRequest, mode: Mode) -> Split:
    """The split of this mode that asks least of the GPUs, to name the shortage that remains."""
    n_all = len(request.shape.blocks) + 1
    if mode is Mode.EXPERTS_ON_CPU:
        return _best_split(request, n_all, n_all - 1 if request.n_cpu_moe is None else request.n_cpu_moe)
    if mode is Mode.SOME_LAYERS:
        return _best_split(request, request.n_gpu_layers or 1, 0)
    return _best_split(request, n_all, 0) if mode is Mode.GPU else Split()


def _best_split(request: FitRequest, n_gpu_layers: int, n_cpu_moe: int) -> Split:
    """The even split if it fits, else another one that does, else one that fits the GPUs, else the even one."""
    ways = layer_splits(request.shape, request.settings, request.machine, n_gpu_layers, n_cpu_moe)
    if request.machine.unified and (found := next((w for w in ways if not shortage(request, w)), None)):
        return found  # elsewhere, splits of the same layers ask the same of the host
    return next((w for w in ways if _worst(request, w, request.machine.gpus) is None), ways[0])


def _gpus_hold(request: FitRequest, n_gpu_layers: int, n_cpu_moe: int) -> bool:
    """Whether the GPUs have room for their part; host memory is not looked at."""
    return _worst(request, _best_split(request, n_gpu_layers, n_cpu_moe), request.machine.gpus) is None


def _greatest(top: int, holds: Callable[[int], bool]) -> int:
    """The greatest n in 0..top for which the monotonic `holds` is true; 0 if it never is."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _least_growth(request: FitRequest) -> int:
    """Host memory for checkpoints and prompt cache at the lowest caps allowed."""
    checkpoints, cache_mib = _least_caps(request)
    return checkpoints * request.shape.rs_sequence_bytes * request.settings.parallel + cache_mib * MIB


def _least_caps(request: FitRequest) -> tuple[int, int]:
    s = request.settings
    checkpoints = s.ctx_checkpoints if "ctx_checkpoints" in request.fixed else min(s.ctx_checkpoints, 1)
    return checkpoints, max(s.cache_ram_mib, 0) if "cache_ram_mib" in request.fixed else 0


def _caps(request: FitRequest, spare: int) -> tuple[int, int]:
    """Context checkpoints and prompt cache (MiB) within `spare` bytes: checkpoints first, because they save more."""
    s = request.settings
    each = request.shape.rs_sequence_bytes * s.parallel
    least_checkpoints, least_cache = _least_caps(request)
    left = spare - least_cache * MIB
    checkpoints = min(s.ctx_checkpoints, max(left // each, least_checkpoints)) if each else s.ctx_checkpoints
    left -= (checkpoints * each) - least_cache * MIB
    cache = min(max(s.cache_ram_mib, 0), left // MIB // CACHE_STEP_MIB * CACHE_STEP_MIB)
    return checkpoints, max(cache, least_cache)


def _placement(request: FitRequest, mode: Mode, split: Split) -> Placement:
    taken = bytes_by_device(request.shape, request.settings, request.machine, split)
    on_gpus = sum(n for name, n in taken.items() if name != HOST) if request.machine.unified else 0
    checkpoints, cache_mib = _caps(request, request.machine.host.room_bytes - taken[HOST] - on_gpus)
    capped = replace(request.settings, ctx_checkpoints=checkpoints, cache_ram_mib=cache_mib)
    guess = estimate_shape(request.shape, capped)
    taken[HOST] += guess.checkpoints_max + guess.prompt_cache_max
    pools = (request.machine.host, *request.machine.gpus)
    return Placement(
        mode=mode,
        ctx_size=request.settings.ctx_size,
        n_gpu_layers=None if mode is Mode.CPU and not request.machine.gpus else split.n_gpu_layers,
        n_cpu_moe=split.n_cpu_moe,
        tensor_split=split.tensor_split,
        ctx_checkpoints=checkpoints,
        cache_ram_mib=cache_mib,
        bytes_by_device=taken,
        free_bytes={p.name: p.room_bytes for p in pools},
        why=_why(request, mode, split),
        estimate=guess,
    )


def _why(request: FitRequest, mode: Mode, split: Split) -> str:
    match mode:
        case Mode.GPU:
            return "everything fits on the GPU" if len(request.machine.gpus) == 1 else "everything fits on the GPUs"
        case Mode.EXPERTS_ON_CPU:
            return f"experts of the first {split.n_cpu_moe} blocks stay in host memory, the rest is on the GPU"
        case Mode.SOME_LAYERS:
            return f"{split.n_gpu_layers} of {len(request.shape.blocks) + 1} layers fit on the GPU"
        case Mode.CPU:
            return "no GPU to use" if not request.machine.gpus else "too little GPU memory for any useful part"


def _refusal(request: FitRequest, modes: Collection[Mode]) -> FitError:
    last = list(modes)[-1]
    lacking = shortage(request, _least_on_gpus(request, last))
    nearest = max(largest_context(request, mode, upto=request.settings.ctx_size) for mode in modes)
    weights = weight_bytes(request.shape)
    if nearest:
        hint = f"a context of {nearest:,} tokens would fit: --ctx-size {nearest}"
    elif lacking and weights > sum(d.room_bytes for d in (request.machine.host, *request.machine.gpus)):
        hint = f"its weights alone take {weights / 1e9:.1f} GB: use a smaller quant or model; see `nemotron-ops plan`"
    else:
        hint = "try fewer slots (--parallel 1) or a smaller quant; `nemotron-ops plan` shows what fits"
    return FitError(
        f"cannot fit the model with a context of {request.settings.ctx_size:,} tokens: {lacking}", hint=hint
    )
