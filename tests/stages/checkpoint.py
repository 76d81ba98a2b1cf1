"""A tiny Nemotron-H checkpoint as transformers saves it, with its tokenizer; taught once per call. Processes, torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nemotron_ops.installation import Installation
from nemotron_ops.models.synthetic.shape import TRAINABLE, Shape
from nemotron_ops.models.synthetic.vocabulary import SPECIALS, vocabulary
from nemotron_ops.models.synthetic.write import chat_template
from nemotron_ops.operations.tiny_train import LESSONS, MORE, ROLES, make, words_of
from nemotron_ops.paths import user_layout
from nemotron_ops.tune import environment
from tests.stages.training import environments

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
KEPT = ("config.json", "model.safetensors", "generation_config.json")


def make_checkpoint(folder: Path, llama_bin: Path, shape: Shape = TRAINABLE) -> None:
    """Write a checkpoint that has learnt `LESSONS` into `folder`, and nothing else."""
    here = Installation(layout=user_layout(dict(os.environ), uid=os.getuid()), env=dict(os.environ))
    python = environment.current(environments())
    assert python is not None
    making = folder.with_name(f"{folder.name}.making")
    making.mkdir(parents=True)
    make(making, shape, here, python, llama_bin / "llama-server")
    folder.mkdir()
    for name in KEPT:
        (making / name).rename(folder / name)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "pad_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat_template(), "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | names))


def tokenizer() -> dict[str, object]:
    """tokenizer.json of the tiny trainable models' vocabulary."""
    words = vocabulary(words_of([text for lesson in LESSONS for text in lesson] + [*ROLES, *MORE]), ())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": i, "content": text, **plain} for i, text in enumerate(SPECIALS)],
        "pre_tokenizer": BYTE_LEVEL, "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(words.tokens)}, "merges": list(words.merges),
        },
    }  # fmt: skip
