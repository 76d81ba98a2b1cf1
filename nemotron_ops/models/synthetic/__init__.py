"""Tiny Nemotron 3 models that answer with known sentences. The door to this package.

They test an engine: an answer depends on every kind of layer and on the tokenizer, so a build that gives `ANSWERS`
computes correctly. Each file uses only those below it:

    stored      tiny models by name: found where they were made, or made
    write       writes tiny models, and models of true size without weights
    metadata    the key-value pairs of a Nemotron 3 GGUF
    container   GGUF bytes from metadata and tensors
    network     weights of the scripted models: every kind of layer carries part of the answer
    residual    the meaning of each dimension of the residual stream; embedding and output matrix
    shape       sizes of a Nemotron 3 network, and its tensors
    scripts     the answers of the tiny models, and the prompts that lead to them
    vocabulary  the tokenizer: special tokens, all bytes, and a few whole words
"""

from nemotron_ops.models.synthetic.scripts import ANSWERS
from nemotron_ops.models.synthetic.stored import ensure

__all__ = ["ANSWERS", "ensure"]
