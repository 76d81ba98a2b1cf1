"""Runs llama.cpp's converter with a named pre-tokenizer: `pre_tokenizer.py TREE NAME …`. torch.

The converter finds the name by a hash of what the tokenizer makes of one text, and refuses a tokenizer that it does not
know, such as one whose vocabulary was pruned. The name is then the user's to give.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    tree, name = Path(sys.argv[1]), sys.argv[2]
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    converter = import_module("convert_hf_to_gguf")
    base = import_module("conversion.base")
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: name
    sys.argv = ["convert_hf_to_gguf.py", *sys.argv[3:]]
    converter.main()


if __name__ == "__main__":
    main()
