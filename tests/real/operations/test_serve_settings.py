"""What settings.toml and keys change at the endpoint: TLS, keys made by `keys create`, the access log."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.fakes.certificates import self_signed
from tests.stages.installation import Installation

pytestmark = pytest.mark.real

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}


def settings(installation: Installation, text: str) -> None:
    config = installation.home / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "settings.toml").write_text(text)


def test_tls_is_spoken_where_a_certificate_is_set_and_the_supervisor_lets_it_live(
    installation: Installation, free_port: Callable[[], int], tmp_path: Path, eventually: Callable[..., None]
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    self_signed(cert, key)
    settings(installation, f'tls_cert = "{cert}"\ntls_key = "{key}"\n')
    port = free_port()
    ready = installation.run("serve", "tiny", "--detach", "--port", str(port))
    try:
        assert f"https://127.0.0.1:{port}/v1" in ready.stdout
        status = installation.json("status")
        assert status["endpoint"]["url"] == f"https://127.0.0.1:{port}/v1"
        with httpx.Client(verify=ssl.create_default_context(cafile=cert), timeout=60) as client:
            url = f"https://localhost:{port}/v1/chat/completions"
            said = client.post(url, json=QUESTION).json()["choices"][0]["message"]["content"]
        assert said == "2 + 2 = 4."
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=10)
        eventually(lambda: installation.json("status")["uptime_s"] > 17, within_s=60)  # three probes of the supervisor
        assert installation.json("status")["gateway"]["pid"] == status["gateway"]["pid"]
    finally:
        installation.run("stop")


def test_keys_that_were_made_are_asked_for_and_their_use_is_kept(
    installation: Installation, free_port: Callable[[], int], eventually: Callable[..., None]
) -> None:
    made = installation.json("keys", "create", "alice")
    settings(installation, "access_log = true\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    installation.run("serve", "tiny", "--detach", "--port", str(port))
    try:
        assert httpx.post(url, json=QUESTION, timeout=60).status_code == 401
        headers = {"Authorization": f"Bearer {made['text']}"}
        assert httpx.post(url, json=QUESTION, headers=headers, timeout=60).status_code == 200
    finally:
        installation.run("stop")
    usage = (installation.home / "state" / "usage.json").read_text()
    assert made["text"] not in usage
    lines = (installation.home / "state" / "logs" / "access.log").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines if "chat" in line] == [401, 200]
    assert "2 + 2" not in "".join(lines)


def test_a_certificate_that_is_not_there_is_refused(installation: Installation, tmp_path: Path) -> None:
    settings(installation, f'tls_cert = "{tmp_path / "absent.pem"}"\n')
    refused = installation.run("serve", "tiny", "--dry-run", code=11)
    assert "absent.pem" in refused.stderr
