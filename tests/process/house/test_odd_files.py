"""Pipes, devices, folders and dangling links in the place of files that a person names: one error, no hang. 20 s."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.proc import python_argv

pytestmark = pytest.mark.process
ODD: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),  # read to its end, it would fill the memory
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("/nowhere/file"),
}
# where the file lies below the home folder -> the command that reads it
READ: dict[str, tuple[str, ...]] = {
    "config/recipes/mine.toml": ("recipes", "show", "mine"),
    "config/settings.toml": ("serve", "tiny", "--dry-run"),
    "config/targets.toml": ("deploy", "status", "@fleet"),
    "config/keys.json": ("keys", "list"),
    "model.gguf": ("plan", "{file}"),
    "served.gguf": ("serve", "{file}", "--no-build"),
    "key": ("chat", "tiny", "--url", "http://127.0.0.1:9/v1", "--once", "hi", "--api-key-file", "{file}"),
    "engine.log": ("plan", "{model}", "--compare-log", "{file}"),
    "cert.pem": ("serve", "tiny", "--no-build", "--port", "1", "--tls-cert", "{file}", "--tls-key", "{file}"),
    "keys": ("serve", "tiny", "--no-build", "--port", "1", "--api-key-file", "{file}"),
}
# a missing file of these is the same as none: a link to nowhere too
MAY_BE_MISSING = ("config/settings.toml", "config/targets.toml", "config/keys.json")


def run(home: Path, *words: str) -> tuple[int, str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "NEMOTRON_OPS_HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(
        python_argv("nemotron_ops", *words), env=env, capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_one_error_wherever_a_file_is_named(kind: str, tmp_path: Path) -> None:
    for name, words in READ.items():
        home = tmp_path / name.replace("/", "-")
        file = home / name
        file.parent.mkdir(parents=True)
        ODD[kind](file)
        model = _tiny(home) if "{model}" in words else ""
        code, said = run(home, *(w.format(file=file, model=model) for w in words))
        where = f"{name} as a {kind}: {said}"
        assert "Traceback" not in said, where
        if kind == "dangling link" and name in MAY_BE_MISSING:
            continue
        assert code != 0, where
        assert len([line for line in said.splitlines() if line.lower().startswith("error")]) <= 1, where
        assert file.name in said, where


def _tiny(home: Path) -> str:
    code, said = run(home, "fetch", "tiny", "--json")
    assert code == 0, said
    return str(json.loads(said[said.index("{") :])["path"])


@pytest.mark.parametrize("kind", ODD)
def test_a_token_file_that_is_none_counts_as_no_token(kind: str, tmp_path: Path) -> None:
    from nemotron_ops.models.hub import token_of

    ODD[kind](tmp_path / "token")
    assert token_of({"HF_TOKEN_PATH": str(tmp_path / "token")}) == ""
