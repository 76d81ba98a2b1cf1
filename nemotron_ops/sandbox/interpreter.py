"""Which Python runs inside a sandbox, and the folders that it needs. Disk."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.sandbox.bwrap import View

SYSTEM = Path("/usr/bin/python3")
ROOT_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
STORES = ("/nix/store",)  # programs of distributions that have no /usr


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python and the folders that must be readable for it. `site`: the toolbox's package folder, relative to it."""

    python: str
    folders: tuple[str, ...]
    toolbox: str = ""
    site: str = ""

    def site_below(self, toolbox: str) -> str:
        """The package folder where the toolbox is seen as `toolbox`; "" without one."""
        return f"{toolbox}/{self.site}" if self.toolbox else ""


def present(*, open_to_all: bool = False) -> Interpreter:
    """The Python of this process; with `open_to_all` one that any user may run, or the system's."""
    python = Path(os.path.realpath(sys.executable))
    found = Interpreter(python=str(python), folders=_outside_usr(Path(sys.base_prefix).resolve()))
    if open_to_all and not readable_by_all(Path(found.python)) and SYSTEM.exists():
        return Interpreter(python=os.path.realpath(SYSTEM), folders=())
    return found


def readable_by_all(path: Path) -> bool:
    """Whether every folder above `path` may be entered by any user."""
    try:
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
    except OSError:
        return False


def view(interpreter: Interpreter) -> View:
    """What a sandbox sees of this host: the system's programs, the interpreter, the toolbox."""
    root = Path("/")
    links = tuple((f"/{n}", os.readlink(root / n)) for n in ROOT_FOLDERS if (root / n).is_symlink())
    plain = tuple(f"/{n}" for n in ROOT_FOLDERS if (root / n).is_dir() and not (root / n).is_symlink())
    stores = tuple(s for s in STORES if Path(s).is_dir())
    hidden = tuple(p for p in ("/usr/local/etc", "/usr/src") if Path(p).is_dir())
    folders = tuple(dict.fromkeys(("/usr", *plain, *stores, *interpreter.folders)))
    return View(folders=folders, links=links, hidden=hidden, toolbox=interpreter.toolbox)


def _outside_usr(prefix: Path) -> tuple[str, ...]:
    return () if str(prefix) == "/usr" or str(prefix).startswith("/usr/") else (str(prefix),)
