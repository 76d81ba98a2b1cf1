"""Tables inside pages written by hand: faults of gateway and hosts, models in numbers, rooms, findings. Disk."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generators import rooms
from nemotron_ops.memory.model import MIB, Settings, estimate
from nemotron_ops.tune.findings import KINDS
from tests.fakes.shapes import true_header
from tests.stages.attacks import corpus as sandbox_attacks
from tests.tables import gateway_faults, host_faults

DOCS = Path(__file__).parents[1]
MODELS = ("4b", "30b", "120b")
MEMORY = "explanation/memory.md"
DATA = "how-to/training-data.md"
HOUSE = "explanation/architecture.md"
SANDBOX = "explanation/sandbox.md"


def pages() -> dict[str, str]:
    """Each such page as it should be: path below docs/ -> text."""
    found = {
        _name(gateway_faults.PAGE): gateway_faults.page_with_table(gateway_faults.PAGE.read_text()),
        MEMORY: with_block((DOCS / MEMORY).read_text(), "models", models()),
    }
    found[DATA] = with_block((DOCS / DATA).read_text(), "findings", findings())
    found[SANDBOX] = with_block((DOCS / SANDBOX).read_text(), "attacks", attacks())
    house = (DOCS / HOUSE).read_text()
    for name, block in (("rooms", rooms.rooms()), ("ground", rooms.ground()), ("floors", rooms.floors())):
        house = with_block(house, name, block)
    found[HOUSE] = house
    for module, page in host_faults.PAGES.items():
        found[_name(page)] = host_faults.page_with_table(page.read_text(), module)
    return found


def models() -> str:
    """What a token and a slot of each model take, computed from the header of its GGUF file."""
    rows = ["| model | KV cache per token | recurrent state per slot |", "| --- | --- | --- |"]
    for name in MODELS:
        found = estimate(true_header(name, "Q8_0"), Settings(ctx_size=4096))
        rows.append(f"| {name} | {found.kv_per_token} B | {found.rs_per_sequence / MIB:.1f} MiB |")
    return "\n".join(rows)


def findings() -> str:
    """What `tune check` finds, by name."""
    rows = [f"| `{name}` | {kind.level} | {kind.means} | {kind.remedy} |" for name, kind in KINDS.items()]
    return "\n".join(["| finding | level | means | do |", "| --- | --- | --- | --- |", *rows])


def attacks() -> str:
    """The attacks that the tests hold, by class; bold: those that succeed without a wall."""
    rows = ["| class | attacks |", "| --- | --- |"]
    found: dict[str, list[str]] = {}
    for attack in (a for a in sandbox_attacks() if a["lang"] != "js"):
        bare = attack["measured"].get("none") == "escaped"
        found.setdefault(attack["class"], []).append(f"**{attack['id']}**" if bare else attack["id"])
    return "\n".join([*rows, *(f"| {name} | {', '.join(sorted(ids))} |" for name, ids in found.items())])


def with_block(text: str, name: str, block: str) -> str:
    """`text` with `block` between the marks of `name`."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- /{name} -->"
    assert text.count(begin) == text.count(end) == 1, f"no block {name!r} in the page"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


def _name(page: Path) -> str:
    return str(page.relative_to(DOCS))
