"""Compilers and CUDA toolkits: found on this machine, or assembled from wheels.

Each file uses only those below it:

    compilers    chooses the compilers, their cache and their environment
    toolchain    provides the programs of a build: cmake and ninja from wheels, a system compiler or a private one
    cuda         chooses CUDA toolkit and architectures, or refuses with a remedy
    cuda_wheels  assembles a CUDA toolkit from NVIDIA's wheels, without root
    cuda12       completes NVIDIA's wheels of CUDA 12: the missing compiler, and headers for newer C libraries
    zig          unpacks zig, a C and C++ compiler, from its wheel, without root
"""
