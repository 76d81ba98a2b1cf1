"""No secret reaches a message, whatever text of another program becomes one."""

from __future__ import annotations

import httpx
import pytest

from nemotron_ops.cli import show
from nemotron_ops.errors import ModelError, conceal, conceal_environment, redacted

TOKEN, BROKEN, KEY, PASSWORD = "hf_PlantedPlanted", "planted-one\nplanted-two", "planted-key-3f9", "planted-pass"
PIECES = (TOKEN, "planted-one", "planted-two", KEY, PASSWORD)


def foreign_errors() -> list[BaseException]:
    """Errors of httpx, its URL parser and the operating system, with secrets in their texts."""
    found: list[BaseException] = [
        OSError(2, "No such file or directory", f"/home/me/{TOKEN}"),
        OSError(f"cannot connect to proxy http://me:{PASSWORD}@proxy:3128"),
        httpx.ConnectError(f"[Errno 111] https://{TOKEN}@hub.example/a refused"),
        httpx.RemoteProtocolError(f"illegal header line: b'Authorization: Bearer {BROKEN.split()[0]}'"),
        ValueError(f"bad header authorization: Basic {PASSWORD}"),
        ValueError(f"https://cdn.example/x?X-Amz-Signature={PASSWORD}&token={PASSWORD}&a=1"),
        UnicodeEncodeError("ascii", KEY, 0, 1, f"ordinal not in range: {KEY}"),
    ]
    try:
        httpx.Client(headers={"authorization": f"Bearer {BROKEN}"}).get("http://127.0.0.1:9/")
    except (httpx.HTTPError, ValueError) as exc:
        found.append(exc)
    for url in (f"http://me:{PASSWORD}@host:port/", f"http://me:{PASSWORD}@["):
        try:
            httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as exc:
            found.append(exc)
    return found


@pytest.mark.parametrize("exc", foreign_errors(), ids=lambda e: type(e).__name__)
def test_a_secret_in_a_foreign_error_is_never_printed(exc: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    conceal_environment({"HF_TOKEN": BROKEN, "MY_API_KEY": KEY, "PATH": "/usr/bin", "EMPTY_TOKEN": ""})
    for said in (str(exc), repr(exc)):
        error = ModelError(f"cannot read x: {said}", hint=f"look at {said}", log_tail=(said,))
        show(error)
        printed = f"{capsys.readouterr()} {error!r} {error} {error.hint} {error.log_tail}"
        assert not [p for p in PIECES if p in printed]
        assert "cannot read x" in printed


def test_ordinary_words_stay() -> None:
    conceal("abc")
    text = "cannot read acme/Nemo:Q8_0 at https://hub.example/a?b=1: user@host:22 abc /home/me/hf_cache HF_TOKEN basic"
    assert redacted(text) == text
