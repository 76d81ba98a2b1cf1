"""Judges HTTP answers to range requests, and decides on further connections. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
SLOW_BYTES_S = 150e6  # of all connections together; below this, one more may help


class Verdict(StrEnum):
    """How to treat an answer."""

    TAKE = "take"  # its body starts where asked
    SKIP = "skip"  # the server ignored Range: its body starts at the file's first byte
    CHANGED = "changed"  # not the file that earlier answers came from
    PLAIN = "plain"  # useless as an answer to Range: ask without
    WRONG = "wrong"  # not the file


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The verdict on one answer; `why` explains CHANGED, PLAIN and WRONG."""

    verdict: Verdict
    why: str = ""


def judge(status: int, headers: Mapping[str, str], *, start: int, end: int, size: int, etag: str) -> Answer:
    """Judge an answer to a request for bytes `start` to `end` of a file of `size` bytes.

    `etag` is that of earlier answers, or "". Header names are lower case.
    """
    if headers.get("content-type", "").startswith("text/html"):
        return Answer(verdict=Verdict.WRONG, why="a web page was sent instead of the file")
    if headers.get("content-encoding", "identity") not in ("", "identity"):
        return Answer(verdict=Verdict.WRONG, why=f"it came compressed ({headers['content-encoding']})")
    total, first = size, start
    if status == 206:
        match = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None:
            return Answer(verdict=Verdict.PLAIN, why="the answer does not say which bytes it has")
        first, last, total = (int(g) for g in match.groups())
        if first != start or last != end - 1:
            return Answer(verdict=Verdict.WRONG, why=f"bytes {first}-{last} were sent instead of {start}-{end - 1}")
    elif "content-length" in headers:
        total = int(headers["content-length"]) if headers["content-length"].isdigit() else -1
    if total != size:
        return Answer(verdict=Verdict.WRONG, why=f"the file there has {total:,} bytes, the hub lists {size:,}")
    if etag and headers.get("etag", etag) != etag:
        return Answer(verdict=Verdict.CHANGED, why="the file on the server was replaced")
    return Answer(verdict=Verdict.SKIP if status == 200 and start else Verdict.TAKE)


def one_more_connection(*, active: int, most: int, rate_bytes_s: float, left_bytes: int, run_bytes: int) -> bool:
    """Whether to open another connection: work is left, and the present connections are slow."""
    return active < most and rate_bytes_s < SLOW_BYTES_S and left_bytes > active * run_bytes


def backoff_s(failures: int, *, first_s: float, most_s: float, advice_s: float | None) -> float:
    """Seconds to wait after `failures` in a row; the server's advice counts, within bounds."""
    doubled: float = min(most_s, first_s * 2 ** (failures - 1))
    return doubled if advice_s is None else min(most_s, max(doubled, advice_s))
