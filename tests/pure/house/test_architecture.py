"""The floor plan, held by the syntax tree: doors between rooms, doors inside the gateway, no circles, maps, `Pure.`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nemotron_ops

ROOT = Path(nemotron_ops.__file__).parent
ROOMS = {
    *("recipes", "models", "memory", "engine", "builds", "supervisor", "gateway", "service", "deploy"),
    *("web", "tune", "studio", "sandbox", "agent"),
    *("operations", "measure", "cli"),
}
EVERYTHING = ROOMS - {"cli", "measure"}
# from -> to, each a room, a floor or a file; `cli` may use everything, and nothing uses `cli`
DOORS = {
    ("agent", "sandbox"),
    ("agent", "web"),
    ("agent.mcp.settings", "recipes.check"),
    ("builds.proof", "engine"),
    ("builds.proof", "models.synthetic"),
    ("deploy", "service.spec"),
    ("gateway", "supervisor.snapshot"),
    ("measure", "builds.store"),
    ("measure", "engine.env"),
    ("measure", "engine.once"),
    ("measure", "models.store"),
    ("measure", "operations"),
    ("measure", "recipes.load"),
    ("measure", "supervisor.control"),
    ("measure", "supervisor.snapshot"),
    ("measure", "supervisor.spec"),
    ("memory", "models.gguf"),
    ("supervisor", "engine"),
    ("tune", "models.gguf"),
    ("tune.tiny_weights", "models.synthetic"),
    ("studio.neighbours.supervisor", "supervisor.control"),
    ("web.settings", "recipes.check"),
    *(("operations", room) for room in EVERYTHING),
}
# inside the gateway, along the path of a request: floor -> what it may use, besides itself
GATEWAY = {
    "api": set[str](),
    "loop": set[str](),
    "client": {"api", "loop"},
    "streams": {"api"},
    "keys": {"api", "options", "warnings_log"},
    "batches": {"api", "client", "warnings_log"},
    "toolcalls": {"api"},
    "request": {"api", "streams", "toolcalls"},
    "upstream": {"api.errors", "loop", "streams"},
    "queue": {"api", "loop", "options", "request", "upstream", "observe.metrics"},
    "continuation": {"api", "request", "streams"},
    "openapi": {"api", "batches.batch", "request"},
    "responses": {"api", "request", "streams", "warnings_log"},
    "ollama": {"api", "streams"},
    "record": {
        *("api", "client", "continuation", "keys", "ollama", "queue", "request", "responses"),
        *("streams", "toolcalls", "upstream.connection"),
    },
    "observe": {"api", "keys", "options", "record", "streams", "warnings_log"},
    "shared": {"batches.folder", "loop", "observe.metrics", "options", "queue", "record", "responses.store", "streams"},
    "exchange": {
        *("api", "batches", "client", "continuation", "keys", "loop", "ollama", "queue", "request", "responses"),
        *("streams", "options", "toolcalls", "upstream", "record", "shared", "warnings_log"),
    },
}
TOP = {"__main__", "server"}  # may use every floor of the gateway
IMPURE = {
    *("asyncio", "httpx", "os", "psutil", "random", "select", "shutil", "signal", "socket", "subprocess", "sys"),
    *("tempfile", "threading", "time", "uvloop"),
}
MODULES = sorted(p for p in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """Dotted name below the package; a package's `__init__.py` has the name of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(p) for p in MODULES}


def imports_of(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file: at its top, in functions and under `TYPE_CHECKING`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def our_imports(path: Path) -> set[str]:
    """The modules of this package that the file imports, as `name_of` names them."""
    found = set()
    for target in imports_of(path):
        if not target.startswith("nemotron_ops."):
            continue
        name = target.removeprefix("nemotron_ops.")
        found.add(name if name in NAMES else name.rpartition(".")[0])
    return found


USES = {name_of(p): our_imports(p) for p in MODULES}


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def circles() -> Iterator[list[str]]:
    """Groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        index[name] = low[name] = len(index)
        stack.append(name)
        for used in sorted(USES[name] - {name}):
            if used not in index:
                yield from visit(used)
                low[name] = min(low[name], low[used])
            elif used in stack:
                low[name] = min(low[name], index[used])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                yield sorted(group)

    for name in sorted(USES):
        if name not in index:
            yield from visit(name)


def test_rooms_are_entered_only_through_their_doors() -> None:
    wrong = []
    for name, used in USES.items():
        room = name.split(".")[0]
        if room == "cli":
            continue
        for target in used:
            to_room = target.split(".")[0]
            if to_room not in ROOMS or to_room == room or (name, to_room) == ("__main__", "cli"):
                continue
            if not any(within(name, a) and within(target, b) for a, b in DOORS):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_floors_of_the_gateway_are_entered_only_through_their_doors() -> None:
    wrong = []
    for name, used in USES.items():
        room, _, inner = name.partition(".")
        floor = inner.split(".")[0]
        if room != "gateway" or not floor or floor in TOP or floor not in GATEWAY:
            continue
        for target in used:
            to = target.removeprefix("gateway.")
            if not target.startswith("gateway.") or within(to, floor):
                continue
            if not any(within(to, door) for door in GATEWAY[floor]):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_only_the_command_line_prints_or_reads_its_words() -> None:
    wrong = []
    for path in MODULES:
        name = name_of(path)
        if name.split(".")[0] in ("cli", "ui"):
            continue
        words = {target.split(".")[0] for target in imports_of(path)} & {"click", "rich"}
        wrong += [f"{name} imports {word}" for word in words]
        wrong += [f"{name} imports ui" for target in our_imports(path) if target == "ui"]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert list(circles()) == []


def test_every_package_has_a_map_with_a_line_for_each_of_its_files() -> None:
    missing = []
    for path in MODULES:
        if path.name != "__init__.py":
            continue
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in text.splitlines()]
        named = {word for first, *rest in lines if rest for word in re.split(r"[,\s]+", first)}
        floors = {p.parent.name for p in path.parent.glob("*/__init__.py")}
        files = {p.stem for p in path.parent.glob("*.py")} - {"__init__"}
        missing += [f"{name_of(path) or 'nemotron_ops'}: {n}" for n in sorted((files | floors) - named)]
    assert missing == []


def test_every_module_says_what_it_is_for() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{name_of(path)} has no docstring"


def test_pure_modules_touch_nothing() -> None:
    wrong = []
    for path in MODULES:
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        if not doc.split("\n\n")[0].rstrip().endswith("Pure."):
            continue
        wrong += [f"{name_of(path)} imports {i}" for i in imports_of(path) if i.split(".")[0] in IMPURE]
    assert wrong == []
