"""The environment of a llama-server: scrubbed, with a home of its own. Pure.

llama-server takes any option from `LLAMA_ARG_*`, reads `$XDG_CONFIG_HOME/llama.cpp/config.ini` (a stray one silently
changes sampling), changes its port for `AIP_MODE`, and enables shell tools by variable (llama.cpp v0.5.0,
common/arg.cpp:719). So it inherits only the variables of drivers and the loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

KEPT = frozenset({"PATH", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"})
KEPT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_CUDA_", "GGML_VK_", "VK_", "OMP_", "GOMP_")
FIXED = {"GGML_NO_BACKTRACE": "1"}  # otherwise an assertion forks gdb, which can hang the dying process


def child_env(base: Mapping[str, str], *, home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The kept variables of `base`, with HOME and XDG_CONFIG_HOME at `home`; `extra` overrides them."""
    kept = {k: v for k, v in base.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_CACHE_HOME": str(home / ".cache")}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **kept, **FIXED, **own, **(extra or {})}
