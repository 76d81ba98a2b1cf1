"""Work folders are removed at any depth."""

from __future__ import annotations

import os
from pathlib import Path

from nemotron_ops.sandbox.remove import remove_tree


def test_a_tree_deeper_than_the_stack_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "work"
    top.mkdir()
    (tmp_path / "kept").write_text("x")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.symlink(tmp_path / "kept", "link", dir_fd=fd)
    os.mkdir("shut", 0o000, dir_fd=fd)
    os.close(fd)
    remove_tree(top)
    assert not top.exists()
    assert (tmp_path / "kept").read_text() == "x"
    remove_tree(top)  # gone already
