"""Compilers and CUDA toolkits: found on this machine, or assembled from wheels.

Each file uses only those below it:

    compilers    which compilers, with what in front of them and around them
    toolchain    what compiles: cmake and ninja from wheels, a system compiler, or a private one
    cuda         which CUDA toolkit and which architectures: chosen, or refused with the remedy
    cuda_wheels  A CUDA toolkit without root: NVIDIA's wheels, assembled in a private folder
    cuda12       what NVIDIA's wheels of CUDA 12 lack of a toolkit, and headers that newer C libraries trip over
    zig          A C and C++ compiler without root: zig, from its wheel
"""
