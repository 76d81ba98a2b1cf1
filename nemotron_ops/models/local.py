"""GGUF headers of files on this machine. Disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.models import gguf
from nemotron_ops.models.ref import shard_names


def read_header(path: Path) -> gguf.Header:
    """The header of the model whose first (or only) file is `path`, shards included.

    Raises ModelError if a file is missing, is no GGUF, is too short for its tensors, or belongs to another set.
    """
    names = shard_names(path.name)
    headers = []
    for name in names:
        file = path.with_name(name)
        try:
            if not stat.S_ISREG((found := file.stat()).st_mode):  # a pipe would be waited for
                raise ModelError("cannot read the model: it is no ordinary file")
            size = found.st_size
            with file.open("rb") as f:
                header = gguf.parse(_reader(f.fileno()), size=size)
        except OSError as exc:
            raise ModelError(f"cannot read {file}: {exc.strerror or exc}") from exc
        except ModelError as exc:
            raise ModelError(f"{exc.message} ({file})", hint=exc.hint) from exc
        gguf.check_size(header, size, str(file))
        headers.append(header)
    return gguf.combine(headers, names)


def _reader(fd: int) -> gguf.Read:
    return lambda offset, n: os.pread(fd, n, offset)
