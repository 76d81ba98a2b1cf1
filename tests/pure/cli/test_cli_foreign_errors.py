"""Errors of the disk, the locale and missing packages are one line with a hint; bugs keep their traceback."""

from __future__ import annotations

import errno
import os

import pytest

from nemotron_ops.cli.foreign_errors import HINTS, translated


@pytest.mark.parametrize("number", sorted(HINTS), ids=lambda n: errno.errorcode[n])
def test_an_error_of_the_disk_names_path_cause_and_hint(number: int) -> None:
    found = translated(OSError(number, os.strerror(number), "/srv/models"))
    assert found is not None
    assert found.message == f"cannot use /srv/models: {os.strerror(number)}"
    assert found.hint == HINTS[number]


def test_an_error_without_a_path_is_translated_where_its_cause_is_known() -> None:
    found = translated(OSError(errno.ENOSPC, "No space left on device"))
    assert found is not None
    assert found.message == "cannot go on: No space left on device"
    assert translated(OSError("something")) is None


def test_text_that_is_no_utf_8_and_a_missing_proxy_package_are_named() -> None:
    text = translated(UnicodeDecodeError("utf-8", b"\xff\xfe", 0, 1, "invalid start byte"))
    proxy = translated(ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."))
    assert text is not None
    assert proxy is not None
    assert "UTF-8" in (text.hint or "")
    assert "pip install socksio" in (proxy.hint or "")


@pytest.mark.parametrize("bug", [ImportError("No module named 'nemotron_opps'"), KeyError("x"), ValueError("x")])
def test_a_bug_is_not_translated(bug: Exception) -> None:
    assert translated(bug) is None
