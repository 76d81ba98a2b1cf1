"""What the disk refuses while something is built, in words. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from nemotron_ops.builds.disk import HINT
from nemotron_ops.errors import BuildError, HostError, NemotronOpsError


@contextmanager
def disk_told() -> Iterator[None]:
    """Whatever the disk refuses, in our words; a reader of our output that went away is no matter of the disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise disk_error(exc) from exc


def disk_error(exc: OSError) -> NemotronOpsError:
    """What `exc` means to whoever builds."""
    where = f" ({exc.filename})" if exc.filename else ""
    message = f"cannot build llama.cpp: {(exc.strerror or str(exc)).lower()}{where}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(message, hint=f"{HINT}; the build goes on where it stopped")
    return BuildError(message)
