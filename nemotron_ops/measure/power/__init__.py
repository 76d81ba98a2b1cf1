"""What a load costs in energy, where the machine tells: NVIDIA's GPUs, processors and memory, Macs.

Each file uses only those below it:

    meter         the joules of this machine while a load runs
    nvml          energy of NVIDIA's GPUs, from their driver
    rapl          energy of processors and memory, from the kernel's counters
    powermetrics  power of a Mac's chip, from macOS's own program
    energy        joules by part of the machine, and what they mean for a load
"""
