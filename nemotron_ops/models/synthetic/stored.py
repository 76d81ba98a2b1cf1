"""Tiny models by name: found where they were made, or made. Disk."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from nemotron_ops.files import sync_dir

EDITION = 1  # grows when the bytes of a tiny model change, so that old files are not reused


def ensure(kind: str, directory: Path, *, quant: str = "Q8_0", seed: int = 3) -> Path:
    """The tiny model `kind` ("moe", "dense", "super") in `directory`, made if it is not there yet.

    Same arguments, same bytes. Raises UsageError for an unknown kind or quant.
    """
    path = directory / f"tiny-{kind}-{quant}-s{seed}-e{EDITION}.gguf"
    if path.exists():
        return path
    from nemotron_ops.models.synthetic.shape import shape_of
    from nemotron_ops.models.synthetic.write import write_tiny  # numpy and gguf: only where a model is made

    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=directory, prefix=".making-") as room:
        made = Path(room) / path.name
        write_tiny(shape_of(kind), made, quant=quant, seed=seed)
        os.replace(made, path)
    sync_dir(directory)
    return path
