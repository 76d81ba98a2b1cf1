"""A folder of modules with the names that the program imports: each that runs leaves a mark."""

from __future__ import annotations

import ast
from pathlib import Path

import nemotron_ops

PACKAGE = Path(nemotron_ops.__file__).parent
RAN = "ran"


def imported_names() -> set[str]:
    """All top-level names that the package imports, in functions too."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - {"__future__"}


def plant(folder: Path) -> Path:
    """Fill `folder`; returns the file that each module that runs writes its name into, and that is not there yet."""
    folder.mkdir()
    mark = folder / RAN
    for name in sorted(imported_names()):
        text = f"open({str(mark)!r}, 'a').write({name!r} + ' ')\nraise ImportError({name!r})\n"
        (folder / f"{name}.py").write_text(text)
    return mark
