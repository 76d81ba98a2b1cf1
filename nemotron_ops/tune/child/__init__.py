"""Programs that import torch. They run by path inside the training environment, and import nothing of this package.

train     trains a LoRA: plan.json in, progress.jsonl, checkpoints and the adapter out
tiny      makes the tiny trainable model, and teaches it its sentences
batches   which samples each step learns from, and padding; no torch
"""
