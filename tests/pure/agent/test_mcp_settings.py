"""mcp.toml and mcp.json: what is read, what is refused; pins of tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemotron_ops.agent.mcp import pins
from nemotron_ops.agent.mcp.pins import Listed
from nemotron_ops.agent.mcp.settings import Approve, Wall, load, with_secrets
from nemotron_ops.errors import RecipeError


def written(folder: Path, text: str) -> Path:
    (folder / "mcp.toml").write_text(text)
    return folder


def test_a_server_runs_behind_a_wall_and_offers_nothing_until_it_is_named(tmp_path: Path) -> None:
    server = load(written(tmp_path, '[servers.a]\ncommand = ["a"]\n'))["a"]
    assert (server.sandbox, server.allow, server.approve) == (Wall.WORK, (), Approve.ALWAYS)


def test_no_file_is_no_server(tmp_path: Path) -> None:
    assert load(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[servers.a]\ncommand = "a"', "servers.a.command: expected a list"),
        ('[servers.a]\ncomand = ["a"]', "did you mean command?"),
        ("[servers.a]\n", "expected either command or url"),
        ('[servers.a]\ncommand = ["a"]\nurl = "http://x"', "expected either command or url"),
        ('[servers.a]\nurl = "file:///x"', "expected an http or https address"),
        ('[servers.a]\nurl = "http://x"\nread = ["/x"]', "read: is for servers with command"),
        ('[servers.a]\ncommand = ["a"]\nheaders = {A = "b"}', "headers: is for servers with url"),
        ('[servers.a]\ncommand = ["a"]\nread = ["x"]', "expected an absolute path below /"),
        ('[servers.a]\ncommand = ["a"]\nwrite = ["/"]', "expected an absolute path below /"),
        ('[servers.a]\ncommand = ["a"]\nread = ["/x/../.."]', "expected an absolute path below /"),
        ('[servers.a]\ncommand = ["a"]\nsandbox = "none"', "expected one of work, net, off"),
        ('[servers.a]\ncommand = ["a"]\ntimeout_s = 0', "timeout_s: expected a number above 0"),
        ('[servers.a__b]\ncommand = ["a"]', "expected a name of up to 31"),
        ("x = 1", "x: unknown key"),
        ("[", "cannot read"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(written(tmp_path, text))
    assert said in caught.value.message
    assert "mcp.toml" in caught.value.message


def test_a_server_of_mcp_json_takes_what_that_file_cannot_say_from_our_table(tmp_path: Path) -> None:
    theirs = {"mcpServers": {
        "a": {"command": "npx", "args": ["-y", "x"], "env": {"A": "1"}, "disabled": False},
        "b": {"type": "http", "url": "https://b.example/mcp", "headers": {"X": "1"}},
    }}  # fmt: skip
    (tmp_path / "mcp.json").write_text(json.dumps(theirs))
    found = load(written(tmp_path, '[servers.a]\nallow = ["t"]\nsandbox = "net"\n'))
    assert (found["a"].command, found["a"].env) == (("npx", "-y", "x"), {"A": "1"})
    assert (found["a"].allow, found["a"].sandbox) == (("t",), Wall.NET)
    assert (found["b"].url, found["b"].allow) == ("https://b.example/mcp", ())


@pytest.mark.parametrize("text", ["[]", '{"mcpServers": []}', '{"mcpServers": {"a": 1}}', "{"])
def test_a_wrong_mcp_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mcp.json").write_text(text)
    with pytest.raises(RecipeError, match=r"cannot read .*mcp\.json"):
        load(tmp_path)


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    written(tmp_path, '[servers.a]\ncommand = ["a"]\nenv = {B = "1"}\nenv_files = {A = "token"}\n')
    assert with_secrets(load(tmp_path)["a"], tmp_path).env == {"B": "1", "A": "s3cret"}
    (tmp_path / "token").write_text("two\nlines\n")
    with pytest.raises(RecipeError, match="expected one line"):
        with_secrets(load(tmp_path)["a"], tmp_path)
    (tmp_path / "token").unlink()
    with pytest.raises(RecipeError, match="it is not a file"):
        with_secrets(load(tmp_path)["a"], tmp_path)


def listed(name: str = "t", **said: object) -> Listed:
    return Listed(name=name, definition={"name": name, "description": "d", "inputSchema": {"type": "object"}, **said})


def test_whatever_a_server_says_of_a_tool_is_in_its_hash(tmp_path: Path) -> None:
    same = listed()
    assert same.digest == listed(_meta={"x": 1}).digest
    changed = [
        listed(description="e"), listed(inputSchema={"type": "object", "properties": {}}), listed(title="T"),
        listed(annotations={"readOnlyHint": True}), listed(outputSchema={}), listed("u"),
    ]  # fmt: skip
    assert len({same.digest, *(one.digest for one in changed)}) == 7


def test_a_tool_is_offered_only_as_it_was_confirmed(tmp_path: Path) -> None:
    assert "was not confirmed yet" in pins.refusal("s", ["t"], [listed()], None)
    pins.keep(tmp_path, "s", [listed()])
    kept = pins.load(tmp_path)["s"]
    assert pins.refusal("s", ["t"], [listed(), listed("new")], kept) == ""
    assert "has changed since" in pins.refusal("s", ["t"], [listed(description="evil")], kept)
    assert "it has no tool 'u'" in pins.refusal("s", ["t", "u"], [listed()], kept)
    assert "was not confirmed yet" in pins.refusal("s", ["t", "new"], [listed(), listed("new")], kept)
    pins.keep(tmp_path, "other", [])
    assert pins.load(tmp_path)["s"] == kept
