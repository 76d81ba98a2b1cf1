"""What `status` says of tools: enabled ones, and the wall that code runs in."""

from __future__ import annotations

from typing import Any

import pytest

from nemotron_ops.cli.status import sandbox_words

HELD = {"backend": "bubblewrap", "attacks_held": 8, "attacks": 8}


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({"enabled": ["web"], "sandbox": HELD}, ""),
        ({"enabled": ["python"], "sandbox": HELD}, "; code runs in bubblewrap, which held 8 of 8 attacks"),
        (
            {"enabled": ["python"], "sandbox": None},
            "; the sandbox was not tried since this boot (nemotron-ops tools doctor)",
        ),
    ],
)
def test_the_wall_is_named_where_code_may_run(tools: dict[str, Any], said: str) -> None:
    assert sandbox_words(tools) == said
