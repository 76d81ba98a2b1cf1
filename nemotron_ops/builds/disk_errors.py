"""Translates disk errors during a build into our own errors. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from nemotron_ops.builds.disk import HINT
from nemotron_ops.errors import BuildError, HostError, NemotronOpsError


@contextmanager
def disk_errors_translated() -> Iterator[None]:
    """Translates every OSError of the block, but for a closed output pipe: that is no matter of the disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise disk_error(exc) from exc


def disk_error(exc: OSError) -> NemotronOpsError:
    """`exc` as an error of the build."""
    where = f" ({exc.filename})" if exc.filename else ""
    message = f"cannot build llama.cpp: {(exc.strerror or str(exc)).lower()}{where}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(message, hint=f"{HINT}; the build continues where it stopped")
    return BuildError(message)
