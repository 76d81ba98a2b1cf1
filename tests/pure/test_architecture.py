"""Who may import whom, and what `Pure.` means: rules of DESIGN.md held by the syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

import nemotron_ops

ROOT = Path(nemotron_ops.__file__).parent
ROOMS = {"recipes", "build", "models", "memory", "engine", "supervisor", "gateway", "service", "deploy", "cli"}
DOORS = {
    ("build", "engine"),
    ("build", "models.synthetic"),
    ("deploy", "service.units"),
    ("gateway", "supervisor.snapshot"),
    ("memory", "models.gguf"),
    ("supervisor", "engine"),
}
IMPURE = {
    *("asyncio", "httpx", "os", "psutil", "random", "select", "shutil", "signal", "socket", "subprocess", "sys"),
    *("tempfile", "threading", "time", "uvloop"),
}
MODULES = sorted(p for p in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file, relative to the package where they are ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_rooms_are_entered_only_through_their_doors() -> None:
    wrong = []
    for path in MODULES:
        room = name_of(path).split(".")[0]
        for target in imports_of(path):
            if not target.startswith("nemotron_ops."):
                continue
            to = target.removeprefix("nemotron_ops.")
            to_room = to.split(".")[0]
            if to_room not in ROOMS or to_room == room or room == "cli":
                continue
            if to_room == "cli" and name_of(path) == "__main__":
                continue
            if not any(room == a and (to == b or to.startswith(b + ".")) for a, b in DOORS):
                wrong.append(f"{name_of(path)} imports {to}")
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    for path in MODULES:
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc or not path.read_text().strip(), f"{name_of(path)} has no docstring"


def test_pure_modules_touch_nothing() -> None:
    wrong = []
    for path in MODULES:
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        if not doc.split("\n\n")[0].rstrip().endswith("Pure."):
            continue
        wrong += [f"{name_of(path)} imports {i}" for i in imports_of(path) if i.split(".")[0] in IMPURE]
    assert wrong == []
