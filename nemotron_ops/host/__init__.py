"""What this machine is: CPU, memory, GPUs, driver, compilers. psutil, /proc, NVML, subprocess.

`probe` looks once and returns a frozen `Facts`; everything else decides from that, so every decision can be
tested with the facts of a machine that is not here.

    facts     the plain values
    parse     text of /proc, /sys and version output -> values; pure
    nvidia    GPUs and driver through NVML, then nvidia-smi; no toolkit needed
    gpus      GPUs of every kind
    look      the probe
"""

from __future__ import annotations

from nemotron_ops.host.facts import Facts, Gpu, Tool
from nemotron_ops.host.look import probe

__all__ = ["Facts", "Gpu", "Tool", "probe"]
