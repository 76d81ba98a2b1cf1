"""llama.cpp: from source to a binary that has proved itself. Git, registries, cmake, ninja, disk.

plan ─▶ source ─▶ toolchain ─▶ run (configure, compile) ─▶ selftest ─▶ store (rename, current)

spec, plan, backends, cuda, ninja, pins, pip_config    decide; pure
source, git, registry, archive, toolchain, cuda_wheels fetch what is needed
run, selftest, store                                   make it, prove it, keep it
"""
