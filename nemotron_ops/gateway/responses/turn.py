"""What is known of one request to the responses API. Pure."""

from __future__ import annotations

from typing import Any

import msgspec


class Turn(msgspec.Struct, eq=False, kw_only=True):
    """One request and the identity of its response. `echo` are the request's fields that the response repeats."""

    id: str  # of the response: "resp_" and `serial`
    serial: str  # what its items' ids are made of
    created_at: int  # Unix time
    asked: str = ""  # the client's name for the model
    echo: dict[str, Any] = {}
    custom: frozenset[str] = frozenset()  # names of tools whose input is free text
    most_calls: int = 0  # of the answer; 0 is no limit
    packs_reasoning: bool = False  # the client keeps reasoning itself, as `encrypted_content`
    stored: bool = True
    previous: str = ""  # id of the response that this turn continues
    input: list[Any] = []  # this turn's own items, without those of earlier turns
