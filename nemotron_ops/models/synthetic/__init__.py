"""Tiny Nemotron 3 models that are made on the spot and say known sentences. The door to this package.

They prove an engine: what they say depends on every kind of layer and on the tokenizer, so a build that answers
`ANSWERS` correctly computes correctly.
"""

from nemotron_ops.models.synthetic.scripts import ANSWERS
from nemotron_ops.models.synthetic.stored import ensure

__all__ = ["ANSWERS", "ensure"]
