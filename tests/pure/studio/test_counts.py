"""What the page reads from a gateway's metrics."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.studio.neighbours.counts import counts

TEXT = """\
# HELP nemotron_ops_tokens_total Tokens by kind
nemotron_ops_tokens_total{model="a",instance="a-0",kind="completion"} 12
nemotron_ops_tokens_total{model="a",instance="a-0",kind="prompt"} 99
nemotron_ops_tokens_total{model="a",instance="a-1",kind="completion"} 1e3
nemotron_ops_tokens_total{model="b",instance="b-0",kind="completion"} NaN
nemotron_ops_queue_length{model="a"} 3
nemotron_ops_queue_length_other{model="a"} 7
"""


def test_completion_tokens_by_instance_and_waiting_requests_by_model() -> None:
    found = counts(TEXT)
    assert (found.tokens, found.waiting) == ({"a-0": 12, "a-1": 1000}, {"a": 3})


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    counts(text)
    counts(f"nemotron_ops_queue_length{{{text}}} {text}")
