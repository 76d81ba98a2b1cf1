"""The checks of the self-test, and what their failures mean. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.builds.backends import AMX_GCC
from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.spec import Backend, Fix
from nemotron_ops.errors import BuildError

GPU_BACKENDS = frozenset({Backend.CUDA, Backend.HIP, Backend.METAL, Backend.VULKAN})
DEVICE_PREFIXES: Mapping[Backend, tuple[str, ...]] = {
    Backend.CUDA: ("CUDA",),
    Backend.HIP: ("ROCm", "HIP", "CUDA"),
    Backend.METAL: ("Metal", "MTL"),
    Backend.VULKAN: ("Vulkan",),
}
# One thread: on a busy machine, threads of so small a model wait for each other and take 20 times as long.
BASE: Mapping[str, Any] = {"ctx_size": 2048, "seed": 1, "threads": 1}
# llama.cpp logs its own lines, such as the number of offloaded layers, at this level (v0.5.0, common/log.cpp:529).
VERBOSE = ("--verbosity", "4")


class SelfTestFailed(BuildError):
    """The binary failed its self-test; `message` says how."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One start of llama-server on one tiny model, with `at_once` concurrent questions."""

    name: str
    kind: str  # of the synthetic model
    settings: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 1


def checks(*, gpu: bool) -> tuple[Check, ...]:
    """Both Nemotron architectures, flash attention on and off, several slots, quantised KV."""
    layers: Mapping[str, Any] = {"n_gpu_layers": "all" if gpu else 0}
    variants: tuple[tuple[str, Mapping[str, Any], int], ...] = (
        ("flash attention on", {"flash_attn": "on"}, 1),
        ("flash attention off", {"flash_attn": "off"}, 1),
        ("three slots", {"parallel": 3}, 3),
        ("quantised KV", {"flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 1),
    )
    each = tuple(
        Check(name=f"{kind}, {name}", kind=kind, settings={**BASE, **layers, **settings}, at_once=at_once)
        for kind in ("moe", "dense")
        for name, settings, at_once in variants
    )
    return (*each, Check(name="moe, two threads", kind="moe", settings={**BASE, **layers, "threads": 2}))


def judge(answer: Mapping[str, Any], expected: tuple[str, str]) -> str:
    """What is wrong with a chat answer; empty if it is the expected one."""
    try:
        message = answer["choices"][0]["message"]
    except (KeyError, IndexError, TypeError):
        return "it answered without a message"
    said = (message.get("reasoning_content") or "", message.get("content") or "")
    if said[1] != expected[1]:
        return f"it said {said[1]!r} instead of {expected[1]!r}"
    if said[0].strip() != expected[0].strip():
        return f"it thought {said[0]!r} instead of {expected[0]!r}"
    return ""


def diagnose(message: str, plan: BuildPlan) -> Fix | None:
    """The fix for a failed self-test, if it is a known miscompile and the plan lacks the fix."""
    gcc = plan.compilers.kind == "gcc" and int(re.sub(r"\D.*", "", plan.compilers.identity[4:]) or 0) < AMX_GCC
    if "SIGILL" in message and gcc and Fix.NO_AMX not in plan.fixes:
        return Fix.NO_AMX
    return None


def devices(listing: str) -> tuple[str, ...]:
    """Names in the output of `llama-server --list-devices`: ("CUDA0", …)."""
    return tuple(re.findall(r"^\s+(\w+):\s", listing, re.MULTILINE))


def has_device(names: tuple[str, ...], backend: Backend) -> bool:
    return any(name.startswith(DEVICE_PREFIXES.get(backend, ())) for name in names)


def offloaded(log: str) -> tuple[int, int] | None:
    """(layers on the GPU, all layers) from llama.cpp's log (llama-model.cpp: "offloaded %d/%d layers to GPU").

    The last line counts: llama-server may log one before loading, when it tries what fits.
    """
    found = re.findall(r"offloaded (\d+)/(\d+) layers to GPU", log)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def not_offloaded(log: str) -> str:
    """What llama.cpp's log says against offloading; empty if all layers are on the GPU."""
    layers = offloaded(log)
    if layers is None:
        return "no layer went to the GPU"
    return f"{layers[0]} of {layers[1]} layers went to the GPU" if layers[0] < layers[1] else ""


def bench_rates(output: str) -> dict[str, float]:
    """Tokens per second from `llama-bench -o json`: {"prompt": …, "generation": …}. Raises ValueError."""
    start, end = output.find("["), output.rfind("]")
    rows = json.loads(output[start : end + 1])
    return {"prompt" if row["n_prompt"] else "generation": round(float(row["avg_ts"]), 1) for row in rows}


def version_mismatch(version_output: str, short_commit: str) -> str:
    """What is wrong with `llama-server --version`; empty if it names the commit that was built."""
    if short_commit in version_output:
        return ""
    first = next((line for line in version_output.splitlines() if "version" in line), "nothing")
    return f"it says {first!r} instead of commit {short_commit}"
