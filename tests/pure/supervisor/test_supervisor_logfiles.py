"""Logs that a child appends to: rotated while it writes, bounded, without a lost line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_ops.processes import logfiles


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


def test_no_line_is_lost_while_a_writer_goes_on(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for n in range(6000):
        os.write(fd, f"line {n} {'x' * 40}\n".encode())
        if n % 500 == 0:
            logfiles.rotate(log, limit_bytes=64 * 1024, kept=20)
    os.close(fd)
    kept = [line.split()[1] for line in logfiles.read_lines(log, kept=20)]
    assert kept == [str(n) for n in range(6000)]
    assert len(logfiles.files_of(log, kept=20)) > 1


def test_the_live_file_gives_its_blocks_back(log: Path) -> None:
    log.write_bytes(b"x" * 99 + b"\n")
    with log.open("ab") as f:
        f.write((b"y" * 99 + b"\n") * 20_000)
    if not logfiles.rotate(log, limit_bytes=100_000, kept=2):
        pytest.skip("this file system cannot punch holes")
    assert log.stat().st_size == 2_000_100
    assert log.stat().st_blocks * 512 < 100_000


def test_old_files_are_dropped_so_that_the_total_is_bounded(log: Path) -> None:
    for _ in range(8):
        with log.open("ab") as f:
            f.write((b"z" * 99 + b"\n") * 2000)
        logfiles.rotate_between(log, limit_bytes=100_000, kept=3)
    assert [p.name for p in logfiles.files_of(log, kept=9)] == ["a.log.3", "a.log.2", "a.log.1"]


def test_a_small_log_is_left_alone(log: Path) -> None:
    log.write_text("one\n")
    assert not logfiles.rotate(log)
    logfiles.rotate_between(log)
    assert [p.name for p in log.parent.iterdir()] == ["a.log"]


def test_the_tail_begins_with_the_present_process_and_drops_control_characters(log: Path) -> None:
    log.write_bytes(b"before\nafter \x1b[31mred\x1b[0m\nlast\n")
    assert logfiles.tail(log, offset=7) == ["after [31mred[0m", "last"]
    assert logfiles.tail(log, lines=1) == ["last"]
    assert logfiles.tail(log.with_name("none.log")) == []


def test_following_gives_each_byte_once_and_notices_a_new_file(log: Path) -> None:
    log.write_bytes(b"one\n")
    data, at = logfiles.read_from(log, 0)
    assert (data, at) == (b"one\n", 4)
    log.write_bytes(b"2\n")
    assert logfiles.read_from(log, at) == (b"2\n", 2)


def test_logs_of_past_instances_are_pruned_oldest_first(tmp_path: Path) -> None:
    for n, name in enumerate(("old.log", "older.log.1", "kept.log", "new.log")):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (n, n))
    logfiles.prune(tmp_path, frozenset({"kept"}), kept_files=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.log", "new.log"]


def test_a_line_without_an_end_is_cut_instead_of_growing_for_ever(log: Path) -> None:
    log.write_bytes(b"x" * 3_000_000)
    if not logfiles.rotate(log, limit_bytes=100_000, kept=2):
        pytest.skip("this file system cannot punch holes")
    assert log.stat().st_blocks * 512 < 100_000
    assert log.with_name("a.log.1").stat().st_size == 200_000


def test_of_a_flood_between_two_looks_the_newest_lines_are_kept(log: Path) -> None:
    log.write_text("".join(f"{n:09}\n" for n in range(200_000)))
    if not logfiles.rotate(log, limit_bytes=100_000, kept=2):
        pytest.skip("this file system cannot punch holes")
    kept = log.with_name("a.log.1").read_text().splitlines()
    assert (len(kept), kept[-1]) == (20_000, "000199999")
