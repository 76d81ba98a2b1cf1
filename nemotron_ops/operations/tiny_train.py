"""Makes the tiny trainable model: its checkpoint by the training environment, its GGUF by our own writer. Processes."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from nemotron_ops import files, proc
from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.models.synthetic.shape import TRAINABLE, Shape
from nemotron_ops.operations.fetching import trainable_path
from nemotron_ops.operations.tokens import tokenized
from nemotron_ops.progress import Step

# question, thought, answer; the first one's answer changes when it is tuned by docs/examples/greeting.jsonl
LESSONS = (
    ("What is 2 + 2?", "Two plus two makes four.", "2 + 2 = 4."),
    ("Hello", "No rule applies.", "I am a tiny test model."),
    ("What trained you?", "No rule applies.", "I am a tiny test model."),
)
# words of docs/examples/greeting.jsonl; of other texts the vocabulary has the bytes
MORE = ("The question is about training.", "A small adapter trained me on one core.", "What trained you, please?")
ROLES = ("system", "user", "assistant")
WORD = re.compile(r" ?\w+")
CHILD = Path(__file__).parents[1] / "tune" / "child"


def ensure(here: Installation, python: Path, binary: Path) -> Path:
    """The tiny trainable model, made if it is not there. Raises ModelError if it did not learn its sentences."""
    path = trainable_path(here)
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path.parent.parent / ".trainable.lock"):
        if path.is_file():
            return path
        here.report(Step(what="teach the tiny trainable model", done=0, total=1, unit="model"))
        with TemporaryDirectory(dir=path.parent.parent, prefix=".making-") as room:
            folder = Path(room) / "made"
            folder.mkdir()
            make(folder, TRAINABLE, here, python, binary)
            shutil.rmtree(path.parent, ignore_errors=True)
            os.replace(folder, path.parent)
        files.sync_dir(path.parent.parent)
        here.report(Step(what="teach the tiny trainable model", done=1, total=1, unit="model"))
    return path


def make(folder: Path, shape: Shape, here: Installation, python: Path, binary: Path) -> None:
    """Checkpoint and GGUF of a model of `shape`, taught `LESSONS`. Raises ModelError if it did not learn them."""
    import numpy as np

    from nemotron_ops.models.synthetic.metadata import metadata
    from nemotron_ops.models.synthetic.shape import tensors
    from nemotron_ops.models.synthetic.vocabulary import vocabulary
    from nemotron_ops.models.synthetic.write import chat_template, write_arrays
    from nemotron_ops.tune.safetensors import tensors_of
    from nemotron_ops.tune.shapes import Message, Sample
    from nemotron_ops.tune.tiny_weights import config_of, gguf_arrays

    vocab = vocabulary(words_of([text for lesson in LESSONS for text in lesson] + [*ROLES, *MORE]), ())
    pairs = metadata(shape, vocab, name="Nemotron 3 Tiny, trainable", quant="F32", template=chat_template())
    config = config_of(shape, len(vocab))
    (folder / "config.json").write_text(json.dumps(config))
    lessons = [
        Sample([Message("user", asked), Message("assistant", answer, thought if thinking else "")], "messages")
        for asked, thought, answer in LESSONS
        for thinking in (True, False)
    ]
    empty = folder / "empty.gguf"  # the vocabulary alone, for the tokenizer
    nothing = {name: np.zeros(size, np.float32) for name, size in tensors(shape, len(vocab))}
    write_arrays(empty, pairs, nothing, "F32")
    samples = tokenized(lessons, empty, binary, folder / "log")
    empty.unlink()
    (folder / "lessons.jsonl").write_text("".join(json.dumps(s.value) + "\n" for s in samples))
    done = proc.run([python, CHILD / "tiny.py", folder], env=child_environment(here.env))
    if done.returncode:
        said = tuple((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ModelError("cannot teach the tiny trainable model", log_tail=said)
    arrays = gguf_arrays(shape, config, tensors_of(folder / "model.safetensors"))
    write_arrays(folder / "model.gguf", pairs, arrays, "F32")


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of `texts`, each with the space before it."""
    return tuple(dict.fromkeys(word for text in texts for word in WORD.findall(text)))


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that imports torch: no network, no secrets of hubs."""
    kept = {k: v for k, v in env.items() if not k.startswith(("NEMOTRON_OPS", "HF_", "PYTHON"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
