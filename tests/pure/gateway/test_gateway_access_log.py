"""The access log survives a full disk, a renamed file and a second gateway."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_ops.errors import GatewayError
from nemotron_ops.gateway.observe import access_log, accounting
from nemotron_ops.gateway.observe.access_log import AccessLog
from nemotron_ops.gateway.options import Options


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Where nothing can be written: a pipe that is full."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    yield fifo
    os.close(fd)


def write(log: AccessLog, *lines: bytes) -> None:
    for line in lines:
        log.add(line)
    log.write(log.take())


def move_to(log: AccessLog, path: Path) -> None:
    log.path, log._fd = str(path), access_log.open_log(str(path))


def test_lines_are_written_in_order(path: Path) -> None:
    log = AccessLog(str(path))
    write(log, b"1\n", b"2\n")
    write(log, b"3\n")
    assert path.read_bytes() == b"1\n2\n3\n"
    assert not log.busy


def test_a_full_disk_is_logged_once_and_loses_no_line_that_fits(capfd: pytest.CaptureFixture[str], path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log = AccessLog("/dev/full")
    for n in range(3):
        write(log, b"%d\n" % n)
    assert capfd.readouterr().err == f"warning: cannot write the access log: {os.strerror(errno.ENOSPC)}; retrying\n"
    move_to(log, path)  # there is room again
    write(log, b"3\n")
    assert path.read_bytes() == b"0\n1\n2\n3\n"
    assert "can write the access log again" in capfd.readouterr().err


def test_lines_kept_for_a_full_disk_are_bounded_and_lost_ones_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(access_log, "WAITING_BYTES", 10)
    monkeypatch.setattr(access_log, "WAITING_LINES", 4)
    log = AccessLog("/dev/full")
    write(log, b"aaaa\n", b"bbbb\n", b"cccc\n", b"dddd\n", b"eeee\n")
    move_to(log, path)
    write(log, b"ffff\n")
    assert path.read_bytes() == b"aaaa\nbbbb\nffff\n"
    assert "3 lines are lost" in capfd.readouterr().err


def test_a_partial_write_is_continued(full: Path) -> None:
    log = AccessLog("")
    log._fd = os.open(full, os.O_WRONLY | os.O_NONBLOCK)
    line = b"x" * 1000 + b"\n"
    log.write([line] * 200)
    reader = os.open(full, os.O_RDONLY | os.O_NONBLOCK)
    found = b""
    while log.busy:
        found += os.read(reader, 1 << 20)
        log.write([])
    found += os.read(reader, 1 << 20)
    os.close(reader)
    assert found == line * 200


@pytest.mark.parametrize("told", [True, False], ids=["and a signal sent", "and nothing said"])
def test_a_renamed_log_is_reopened(path: Path, *, told: bool) -> None:
    log = AccessLog(str(path))
    write(log, b"1\n")
    path.rename(path.with_suffix(".moved"))
    if told:
        log.reopen()
    write(log, b"2\n")
    assert path.read_bytes() == b"2\n"
    assert path.with_suffix(".moved").read_bytes() == b"1\n"


def test_a_log_that_cannot_be_reopened_stays_in_the_old_file(path: Path) -> None:
    path.parent.joinpath("logs").mkdir()
    log = AccessLog(str(path.parent / "logs" / "a"))
    path.parent.joinpath("logs").rename(path.parent / "elsewhere")
    log.reopen()
    write(log, b"1\n")
    path.parent.joinpath("logs").mkdir()
    write(log, b"2\n")
    assert (path.parent / "logs" / "a").read_bytes() == b"1\n2\n"


def test_a_log_is_bounded_and_two_gateways_do_not_move_each_others(path: Path) -> None:
    one, two = (AccessLog(str(path), limit_bytes=10) for _ in range(2))
    write(one, b"one 1\n")
    write(two, b"two 1\n")
    write(one, b"one 2\n")  # 12 bytes are there: they move away
    write(two, b"two 2\n")  # and the other follows
    assert path.read_bytes() == b"one 2\ntwo 2\n"
    assert Path(f"{path}.1").read_bytes() == b"one 1\ntwo 1\n"


def test_a_log_that_cannot_be_opened_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="access log"):
        AccessLog(str(tmp_path / "nowhere" / "access.log"))


def test_lines_added_during_a_slow_write_are_written_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "WRITE_PERIOD_S", 0.01)
    writing, go_on = threading.Event(), threading.Event()

    async def body() -> None:
        kept = accounting.Accounting(Options(control="", access_log=str(path)))
        write = kept.log.write

        def slow(lines: list[bytes]) -> None:
            writing.set()
            go_on.wait(30)
            write(lines)

        monkeypatch.setattr(kept.log, "write", slow)
        kept.log.add(b"one\n")
        over = asyncio.Event()
        keeping = asyncio.create_task(kept.run(over))
        await asyncio.to_thread(writing.wait, 30)
        kept.log.add(b"two\n")
        over.set()
        go_on.set()
        await keeping

    asyncio.run(body())
    assert path.read_text() == "one\ntwo\n"
