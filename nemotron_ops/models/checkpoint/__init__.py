"""Checkpoints in safetensors, as a hub or a folder has them, before they are GGUF.

config   config.json as llama.cpp's converter reads it
choice   which files of a checkpoint are taken: weights and data, never code
shapes   the tensors of safetensors files, from their heads
fetch    fetches a checkpoint from a hub, every file proven
"""
