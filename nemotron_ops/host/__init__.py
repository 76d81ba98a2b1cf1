"""What this machine is: CPU, memory, GPUs, driver, compilers. psutil, /proc, NVML, subprocess.

`probe` looks once and returns a frozen `Facts`; all decisions use only that value, so they can be tested with the facts
of any machine. Each file uses only those below it:

    look      probes this machine
    gpus      finds AMD, Apple and Vulkan GPUs
    nvidia    finds NVIDIA GPUs and their driver, without a CUDA toolkit
    parse     parses /proc, /sys and version output
    facts     facts about a machine, as plain values
"""

from __future__ import annotations

from nemotron_ops.host.facts import Facts, Gpu, Tool
from nemotron_ops.host.look import probe

__all__ = ["Facts", "Gpu", "Tool", "probe"]
