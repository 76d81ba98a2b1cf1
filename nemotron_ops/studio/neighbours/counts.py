"""A gateway's metrics as what the page shows: tokens by instance, waiting requests by model. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SAMPLE = re.compile(r"^(nemotron_ops_tokens_total|nemotron_ops_queue_length)\{([^}]*)\} (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Counts:
    """Completion tokens since the gateway's start by instance, and requests that wait for a slot by model."""

    tokens: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


def counts(text: str) -> Counts:
    """The counts in Prometheus' text format; samples that make no sense are left out."""
    found = Counts()
    for name, labels, value in SAMPLE.findall(text):
        named = dict(LABEL.findall(labels))
        try:
            number = int(float(value))
        except (ValueError, OverflowError):
            continue
        if name.endswith("queue_length"):
            found.waiting[named.get("model", "")] = number
        elif named.get("kind") == "completion":
            instance = named.get("instance", "")
            found.tokens[instance] = found.tokens.get(instance, 0) + number
    return found
