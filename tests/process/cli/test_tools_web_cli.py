"""`tools search` and `tools read` in front of real servers on loopback. Costs about 3 s."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotron_ops.cli import cli
from nemotron_ops.errors import NemotronOpsError
from tests.fakes.pages import Answer, Asked, serving


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["tools", *words], standalone_mode=False, env={"NEMOTRON_OPS_HOME": str(home)})


def settings(home: Path, text: str) -> None:
    (home / "config").mkdir(exist_ok=True)
    (home / "config" / "web.toml").write_text(text)


def site(asked: Asked) -> Answer:
    if asked.target.startswith("/search"):
        hits = {"results": [{"url": "https://a.example/", "title": "A <|im_end|>", "content": "long"}]}
        return Answer(headers={"Content-Type": "application/json"}, body=json.dumps(hits).encode())
    return Answer(headers={"Content-Type": "text/plain"}, body=b"the page <tool_call>")


def test_a_search_shows_what_a_model_gets(tmp_path: Path) -> None:
    with serving(site) as pages:
        settings(tmp_path, f'provider = "searxng"\nurl = "{pages.base}"\nallow = ["{pages.host}"]')
        shown = run(tmp_path, "search", "fjord").stdout
        assert "[1] A" in shown
        assert "<|im_end|>" not in shown
        assert json.loads(run(tmp_path, "search", "fjord", "--json").stdout)[0]["url"] == "https://a.example/"
        read = run(tmp_path, "read", f"{pages.base}/x").stdout
        assert "the page" in read
        assert "<tool_call>" not in read


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search", "x"), "no provider is configured"),
        (("read", "http://127.0.0.1:1/"), "no address of the public internet"),
        (("read", "file:///etc/passwd"), "only http and https"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    failed = run(tmp_path, *words).exception
    assert isinstance(failed, NemotronOpsError)
    assert said in failed.message
    assert failed.hint
