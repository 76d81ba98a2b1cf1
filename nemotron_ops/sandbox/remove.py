"""Removes a work folder that code has left, however deep it is and whatever its rights are. Disk.

Folders are moved up to the top one before they are removed: a recursion would end in the middle of a tree that is
deeper than the interpreter's stack.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove `path` with all below it, as far as this user may. Nothing may write to it any more."""
    with suppress(OSError):
        top = os.open(path, FOLDER)
        try:
            gone = [True]
            while any(gone):
                gone = [_removed(top, name) for name in os.listdir(top)]
        finally:
            os.close(top)
        os.rmdir(path)


def _removed(top: int, name: str) -> bool:
    """Remove a file, or a folder whose own folders are moved up to `top` first; False if it stays."""
    with suppress(OSError):
        os.unlink(name, dir_fd=top)
        return True
    with suppress(OSError):
        os.chmod(name, 0o700, dir_fd=top)
        folder = os.open(name, FOLDER, dir_fd=top)
        try:
            for inner in os.listdir(folder):
                try:
                    os.unlink(inner, dir_fd=folder)
                except OSError:
                    os.chmod(inner, 0o700, dir_fd=folder)
                    os.rename(inner, f".{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)
        return True
    return False
