"""The rooms of the house and the floors of the gateway, from the packages' maps and the architecture test. Disk."""

from __future__ import annotations

from docs.generators.glossary import ROOT, lines_of_map
from tests.pure.house.test_architecture import DOORS, GATEWAY, ROOMS

EVERYTHING = {"cli": "everything", "operations": "every room but `cli` and `measure`"}


def rooms() -> str:
    """One row per room: what it does, and which other rooms it may use."""
    about = lines_of_map(ROOT / "__init__.py")
    rows = [f"| {_link(n)} | {_text(about[n])} | {EVERYTHING.get(n, _doors(n))} |" for n in about if n in ROOMS]
    return "\n".join(["| room | what it does | may use, besides the ground |", "| --- | --- | --- |", *rows])


def ground() -> str:
    """One row per module that all rooms may use."""
    about = lines_of_map(ROOT / "__init__.py")
    rows = [f"| {_link(n)} | {_text(about[n])} |" for n in about if n not in ROOMS and n != "__main__"]
    return "\n".join(["| module | what it does |", "| --- | --- |", *rows])


def floors() -> str:
    """One row per floor of the gateway, in the order of its map: what it does, and which floors it may use."""
    about = lines_of_map(ROOT / "gateway/__init__.py")
    rows = [
        f"| {_link(f'gateway/{n}')} | {_text(about[n])} | {', '.join(f'`{d}`' for d in sorted(GATEWAY[n])) or '–'} |"
        for n in about
        if n in GATEWAY
    ]
    return "\n".join(["| floor | what it does | may use |", "| --- | --- | --- |", *rows])


def _doors(room: str) -> str:
    doors = sorted(to if a == room else f"{to}` (from `{a}" for a, to in DOORS if a.split(".")[0] == room)
    return ", ".join(f"`{d}{'`)' if '(' in d else '`'}" for d in doors) or "–"


def _link(name: str) -> str:
    """`name` as a link to its package or file, where there is one."""
    short = name.rpartition("/")[2]
    for path in (f"{name}/__init__.py", f"{name}.py"):
        if (ROOT / path).exists():
            return f"[`{short}`](../../nemotron_ops/{path})"
    return f"`{short}`"


def _text(about: str) -> str:
    return about.partition("   ")[0].partition("  ->")[0]
