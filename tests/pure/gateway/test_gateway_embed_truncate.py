"""`truncate` of Ollama's embeddings: no text is cut in silence, and one that is too long is the request's fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nemotron_ops.gateway.api.client_faults import status_of
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.ollama.translate import embed_body


@pytest.mark.parametrize("truncate", [True, False, None])
def test_the_whole_text_goes_to_the_engine(truncate: bool | None) -> None:
    text = "word " * 1000
    assert embed_body({"model": "m", "input": text, "truncate": truncate}, 8) == {"model": "m", "input": text}


@pytest.mark.parametrize("truncate", ["yes", 1, [], {}])
def test_a_truncate_that_is_neither_true_nor_false_is_refused(truncate: Any) -> None:
    with pytest.raises(Refusal, match="truncate: expected true or false") as found:
        embed_body({"model": "m", "input": "x", "truncate": truncate}, 8)
    assert found.value.status == 400


def test_a_text_that_is_too_long_for_the_engine_is_no_fault_of_the_engine() -> None:
    message = "input (900 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    body = json.dumps(
        {"error": {"code": 500, "message": message, "type": "server_error"}}, separators=(",", ":")
    ).encode()
    assert status_of(500, body) == 400
    assert status_of(500, body.replace(b"input (900", b"failed (900")) == 500
