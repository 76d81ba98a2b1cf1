"""`NO_PROXY` as people write it becomes what httpx can read."""

from __future__ import annotations

import httpx
import pytest

from nemotron_ops.addresses import readable_no_proxy


@pytest.mark.parametrize(
    ("given", "readable"),
    [
        ("localhost,127.0.0.1,.example.org,*.corp,10.0.0.0/8", "localhost,127.0.0.1,.example.org,*.corp,10.0.0.0/8"),
        ("[::1]", "::1"),
        ("[::1]:8080, ::1", "::1,::1"),
        ("fd00::/8,[fd00::]/8,localhost", "localhost"),
        ("::1/128", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[nonsense]", ""),
        ("*", "*"),
        ("", ""),
        ("http://host:80", "http://host:80"),
        ("host:8080", "host:8080"),
    ],
)
def test_each_entry_is_one_that_httpx_reads(given: str, readable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert readable_no_proxy(given) == readable
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", readable)
    httpx.Client().close()
