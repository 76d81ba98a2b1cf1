"""The numbers on the memory page are those that the code computes."""

from __future__ import annotations

import re
from pathlib import Path

from nemotron_ops.memory.fit import GOOD_CONTEXT
from nemotron_ops.memory.machine import GPU_MARGIN_BYTES, HOST_MARGIN_BYTES
from nemotron_ops.memory.model import MIB, Settings, estimate
from nemotron_ops.memory.model_shape import HYBRID, PLAIN
from tests.fakes.shapes import true_header

PAGE = (Path(__file__).parents[3] / "docs/explanation/memory.md").read_text()


def test_the_table_of_models_is_computed() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) B \| ([\d.]+) MiB \|$", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["4b", "30b", "120b"]
    for name, per_token, per_slot in rows:
        found = estimate(true_header(name, "Q8_0"), Settings(ctx_size=4096))
        assert (str(found.kv_per_token), f"{found.rs_per_sequence / MIB:.1f}") == (per_token, per_slot)


def test_margins_and_names_are_the_codes() -> None:
    margins = f"{GPU_MARGIN_BYTES // MIB} MiB per GPU, {HOST_MARGIN_BYTES // MIB} MiB of host memory"
    assert margins in " ".join(PAGE.split())
    assert f"{GOOD_CONTEXT:,} tokens" in PAGE
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert named >= HYBRID | PLAIN
