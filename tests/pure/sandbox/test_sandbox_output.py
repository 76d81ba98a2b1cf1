"""Text, files and settings: bounded, stripped, and collected from a hostile folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_ops.errors import NemotronOpsError, UsageError
from nemotron_ops.sandbox import collect, enabled, outcome, output
from nemotron_ops.sandbox.limits import Limit, Limits, in_words
from nemotron_ops.sandbox.outcome import Item, Outcome


def test_long_output_keeps_head_and_tail_and_says_what_is_left_out() -> None:
    text = output.Bounded(100)
    for number in range(1000):
        text.add(b"%04d\n" % number)
    said = text.text()
    assert said.startswith("0000\n")
    assert said.endswith("0999\n")
    assert "[… 4900 bytes left out …]" in said
    assert text.total == 5000


def test_short_output_is_whole() -> None:
    text = output.Bounded(100)
    text.add("zwölf\n".encode())
    assert text.text() == "zwölf\n"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J\x1b[31mred", "red"),
        ("\x9b31mred\x90x\x9c", "31mredx"),
        ("a\x00b\x08c\x7f", "abc"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\u202eevil\u2066", "evil"),
        ("\x1bP1$r\x1b\\ok", "ok"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_nothing_that_a_terminal_obeys_gets_through(hostile: str, shown: str) -> None:
    assert output.plain(hostile) == shown


@pytest.mark.parametrize("token", ["<|im_end|>", "</tool_response>", "<tool_call>", "<think>", "<function=x>"])
def test_template_tokens_in_a_result_stay_text(token: str) -> None:
    assert token not in output.for_model(f"a {token} b")
    assert output.for_model("1 < 2 and <b>") == "1 < 2 and <b>"


def test_an_outcome_survives_its_json() -> None:
    item = Item(id="file-1", name="a.csv", mime="text/csv", content=b"1")
    value = Outcome(stdout="x", exit_code=3, files=(item,), limits_hit=("time",), backend="bubblewrap")
    assert outcome.outcome_of(value.as_json()) == value


@pytest.mark.parametrize("name", [v for k, v in vars(Limit).items() if not k.startswith("_")])
def test_every_limit_is_said_with_its_value(name: str) -> None:
    assert in_words(name, Limits(), 30).startswith(f"{name} (")


def collected(folder: Path, limits: Limits | None = None) -> collect.Collected:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return collect.files(fd, {}, collect.marks(fd), limits or Limits())
    finally:
        os.close(fd)


def test_only_plain_files_of_the_folder_are_collected(tmp_path: Path) -> None:
    work, secret = tmp_path / "work", tmp_path / "secret"
    work.mkdir()
    secret.write_text("secret")
    (work / "link").symlink_to(secret)
    (work / "up").symlink_to(tmp_path)
    os.link(secret, work / "hard")
    os.mkfifo(work / "fifo")
    (work / ".hidden").write_text("x")
    (work / "sub").mkdir()
    (work / "sub" / "a.csv").write_text("1,2")
    assert [i.name for i in collected(work).items] == ["sub/a.csv"]


def test_a_file_that_becomes_a_link_before_it_is_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "a").write_text("1")
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    marks = collect.marks(fd)
    (work / "sub" / "a").unlink()
    (work / "sub").rmdir()
    (work / "sub").symlink_to(tmp_path)
    (tmp_path / "a").write_text("outside")
    found = collect.files(fd, {}, marks, Limits())
    os.close(fd)
    assert found.items == ()
    assert found.left_out


def test_too_many_and_too_large_files_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_text("x")
    (tmp_path / "large").write_bytes(b"x" * 100)
    found = collected(tmp_path, Limits(artifacts=4, artifact_bytes=10))
    assert len(found.items) <= 4
    assert found.left_out


@pytest.mark.parametrize(
    ("name", "content", "mime"),
    [
        ("x.txt", b"\x89PNG\r\n\x1a\n...", "image/png"),
        ("x.png", b"<script>", "text/plain"),
        ("x.html", b"<script>", "text/plain"),
        ("x.svg", b"<svg/>", "text/plain"),
        ("t.csv", b"a,b", "text/csv"),
        ("t.csv", b"\xff\x00", "application/octet-stream"),
        ("d.json", b"{}", "application/json"),
    ],
)
def test_the_type_of_a_file_is_that_of_its_content(name: str, content: bytes, mime: str) -> None:
    assert collect.mime(name, content) == mime


def test_names_of_files_are_shown_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\nb").write_text("x")
    assert collected(tmp_path).items[0].name == "a b"


def test_tools_are_off_until_named(tmp_path: Path) -> None:
    assert enabled.allowed(tmp_path) == ()
    assert enabled.change(tmp_path, ("web", "python"), on=True) == ("python", "web")
    assert enabled.change(tmp_path, ("python",), on=False) == ("web",)
    assert enabled.allowed(tmp_path) == ("web",)


def test_a_broken_settings_file_is_an_error_and_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / enabled.FILE).write_text('{"enabled": ["everything"]}')
    with pytest.raises(NemotronOpsError, match="expected"):
        enabled.allowed(tmp_path)


def test_an_unknown_tool_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        enabled.names_in("python,wbe")
    assert caught.value.hint == "did you mean web?"
    assert enabled.names_in(" python , mcp") == ("python", "mcp")
