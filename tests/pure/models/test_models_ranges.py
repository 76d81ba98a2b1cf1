"""Verdicts on HTTP answers to range requests."""

from __future__ import annotations

import pytest

from nemotron_ops.models.ranges import Verdict, backoff_s, judge, one_more_connection

SIZE = 1000


def verdict(status: int, headers: dict[str, str], *, start: int = 0, end: int = SIZE, etag: str = "") -> Verdict:
    return judge(status, headers, start=start, end=end, size=SIZE, etag=etag).verdict


def part(start: int, end: int, total: int = SIZE) -> dict[str, str]:
    return {"content-range": f"bytes {start}-{end - 1}/{total}", "content-length": str(end - start)}


@pytest.mark.parametrize(
    ("status", "headers", "start", "expected"),
    [
        (206, part(100, 1000), 100, Verdict.TAKE),
        (200, {"content-length": "1000"}, 0, Verdict.TAKE),
        (200, {}, 0, Verdict.TAKE),
        (200, {"content-length": "1000"}, 100, Verdict.SKIP),
        (206, part(50, 1000), 100, Verdict.WRONG),
        (206, part(100, 900), 100, Verdict.WRONG),
        (206, part(100, 1000, 1001), 100, Verdict.WRONG),
        (206, {}, 100, Verdict.PLAIN),
        (206, {"content-range": "bytes */1000"}, 100, Verdict.PLAIN),
        (200, {"content-length": "999"}, 0, Verdict.WRONG),
        (200, {"content-length": "many"}, 0, Verdict.WRONG),
        (200, {"content-type": "text/html; charset=utf-8", "content-length": "1000"}, 0, Verdict.WRONG),
        (200, {"content-encoding": "gzip", "content-length": "1000"}, 0, Verdict.WRONG),
    ],
)
def test_answers_are_judged(status: int, headers: dict[str, str], start: int, expected: Verdict) -> None:
    assert verdict(status, headers, start=start) is expected


def test_another_etag_means_another_file() -> None:
    headers = {**part(100, 1000), "etag": '"new"'}
    assert verdict(206, headers, start=100, etag='"old"') is Verdict.CHANGED
    assert verdict(206, headers, start=100, etag='"new"') is Verdict.TAKE
    assert verdict(206, part(100, 1000), start=100, etag='"old"') is Verdict.TAKE


def test_connections_are_added_while_it_is_slow_and_there_is_work() -> None:
    slow = {"active": 1, "most": 4, "rate_bytes_s": 1e6, "left_bytes": 1000, "run_bytes": 100}
    assert one_more_connection(**slow)  # type: ignore[arg-type]
    assert not one_more_connection(**{**slow, "rate_bytes_s": 1e9})  # type: ignore[arg-type]
    assert not one_more_connection(**{**slow, "active": 4})  # type: ignore[arg-type]
    assert not one_more_connection(**{**slow, "left_bytes": 50})  # type: ignore[arg-type]


def test_waiting_doubles_up_to_a_bound_and_listens_to_the_server() -> None:
    waits = [backoff_s(n, first_s=1, most_s=10, advice_s=None) for n in (1, 2, 3, 4, 5)]
    assert waits == [1, 2, 4, 8, 10]
    assert backoff_s(1, first_s=1, most_s=10, advice_s=7) == 7
    assert backoff_s(1, first_s=1, most_s=10, advice_s=3600) == 10
