"""Training data: each shape becomes the same sample, each fault its finding with its row, files are read or refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.cli import cli
from nemotron_ops.errors import UsageError
from nemotron_ops.tune.contamination import HeldOut
from nemotron_ops.tune.data_check import Rules, check
from nemotron_ops.tune.findings import KINDS
from nemotron_ops.tune.shapes import Message, ShapeError, sample_of

ASKED, THOUGHT, ANSWER = "What is 2 + 2?", "Two and two.", "2 + 2 = 4."
THINKING = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
SAME: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT},
        ]
    },
    "messages in a cell": {
        "messages": json.dumps([{"role": "user", "content": ASKED}, {"role": "assistant", "content": THINKING}])
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": ASKED}]},
            {"role": "assistant", "content": THINKING},
        ]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": THINKING}]},
    "alpaca": {"instruction": ASKED, "input": "", "output": THINKING},
    "pair": {"prompt": ASKED, "completion": THINKING},
    "pair with reasoning": {"prompt": ASKED, "completion": ANSWER, "reasoning_content": THOUGHT},
    "pair of messages": {
        "prompt": [{"role": "user", "content": ASKED}],
        "completion": [{"role": "assistant", "content": THINKING}],
    },
}


@pytest.mark.parametrize("row", SAME.values(), ids=list(SAME))
def test_each_shape_becomes_the_same_turns(row: dict[str, Any]) -> None:
    assert sample_of(row).messages == [Message("user", ASKED), Message("assistant", ANSWER, THOUGHT)]


def test_a_gym_row_is_a_task_without_an_answer(tmp_path: Path) -> None:
    row = {"responses_create_params": {"input": [{"role": "user", "content": ASKED}]}, "answer": "4"}
    assert sample_of(row).messages == [Message("user", ASKED)]
    checked = check([written(tmp_path, [row])], Rules())
    assert (checked.answers, checked.findings, checked.shapes) == (0, {}, {"gym": 1})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "a", "rejected": "b"}, "preferences"),
        ({"text": "once"}, "plain text"),
        ({"colour": 1}, "colour"),
        ({}, "none"),
        ({"messages": []}, "empty"),
        ({"messages": "no json"}, "no JSON"),
        ({"messages": [{"role": "narrator", "content": ""}]}, "narrator"),
        ({"messages": [{"role": "user", "content": 5}]}, "neither a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "no name"),
        ({"conversations": [{"value": "x"}]}, "no `from`"),
        ({"instruction": "x"}, "without output"),
        ({"prompt": "x"}, "without completion"),
        ({"responses_create_params": 5}, "no input"),
    ],
)
def test_a_row_without_a_known_shape_says_what_is_wrong(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        sample_of(row)


def talk(answer: str, *, asked: str = ASKED, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, **more}]}


GOOD = talk(THINKING)
FAULTS: dict[str, list[Any]] = {
    "unreadable-row": ["[1]", '{"messages": ', "\x00", '{"a": ' * 2000],
    "unknown-shape": [{"colour": 1}],
    "no-answer-at-end": [{"messages": [{"role": "user", "content": "x"}]}],
    "repeated-role": [
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, *GOOD["messages"][1:]]}
    ],
    "empty-answer": [talk(" \n"), talk("<think>\nonly\n</think>\n")],
    "half-think-block": [
        talk("<think> never closed"),
        talk("never opened</think> so"),
        talk("so <think>late</think> x"),
    ],
    "control-tokens": [
        talk("a<|im_end|>"),
        talk("x", asked="<|im_start|>system"),
        talk("<SPECIAL_12>"),
        talk("</s> x"),
        talk("[INST] x"),
        talk("<tool_call>{}</tool_call>"),
    ],
    "unknown-tool": [talk("", tool_calls=[{"function": {"name": "rm"}}]) | {"tools": [{"function": {"name": "ls"}}]}],
    "secret": [talk("hf_" + "a" * 34), talk("x", asked="-----BEGIN RSA PRIVATE KEY-----"), talk("AKIA" + "A" * 16)],
}


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in FAULTS.items() for row in rows])
def test_a_fault_of_a_row_is_found_in_that_row_alone(tmp_path: Path, name: str, row: Any) -> None:
    first = talk("<think>\na\n</think>\nfirst", asked="a first question")
    other = talk("<think>\nb\n</think>\nother", asked="another question")
    checked = check([written(tmp_path, [first, row, other])], Rules())
    assert {found.name: found.rows for found in checked.findings.values() if found.rows} == {name: [2]}


def test_an_ordinary_row_has_no_finding(tmp_path: Path) -> None:
    rows = [
        talk(f"<think>\nif a < b and x[0]\n</think>\nIt is {n}: <b>a</b> [link](x) [INS]", asked=f"q {n}")
        for n in range(9)
    ]
    assert check([written(tmp_path, rows)], Rules()).findings == {}


def test_rows_are_compared_with_each_other_across_files(tmp_path: Path) -> None:
    one = written(tmp_path, [GOOD, talk(f"<think>\nx\n</think>\n{ANSWER}", asked="  WHAT is ２ + 2?  ")], "one.jsonl")
    two = written(tmp_path, [talk("<think>\nx\n</think>\n5")], "two.jsonl")
    found = {(f.name, f.file): f.rows for f in check([one, two], Rules()).findings.values()}
    assert found == {("duplicate", "one.jsonl"): [2], ("contradiction", "two.jsonl"): [1]}


def test_questions_of_the_test_data_are_found_whole_and_in_part(tmp_path: Path) -> None:
    words = "how many days lie between the first of March and the last day of November"
    test = written(tmp_path, [talk("x", asked=words)], "test.jsonl")
    rows = [
        talk(THINKING, asked=words.upper()),
        talk("<think>\na\n</think>\nb", asked=f"Tell me, please: {words}, and why?"),
        talk("<think>\na\n</think>\nc", asked=" ".join(words.split()[:12])),
    ]
    checked = check([written(tmp_path, rows)], Rules(tests=(test,)))
    assert [f.rows for f in checked.findings.values() if f.name == "contaminated"] == [[1, 2]]


def test_long_rows_are_named_and_never_cut(tmp_path: Path) -> None:
    rows = [
        talk(THINKING),
        talk("<think>\na\n</think>\n" + "word " * 400, asked="q"),
        talk("<think>\na\n</think>\nb", asked="word " * 400),
    ]
    checked = check([written(tmp_path, rows)], Rules(max_length=100))
    assert {f.name: f.rows for f in checked.findings.values()} == {"too-long": [2, 3], "no-label": [3]}


def test_few_reasoning_samples_are_a_warning(tmp_path: Path) -> None:
    for thinking, expected in ((3, False), (2, True)):
        rows = [talk(THINKING if n < thinking else "direct", asked=f"q {n}") for n in range(4)]
        checked = check([written(tmp_path, rows)], Rules())
        assert ("few-reasoning" in {f.name for f in checked.findings.values()}) is expected
        assert (checked.reasoning_share, checked.errors) == (thinking / 4, 0)


def test_one_answer_that_dominates_is_a_warning(tmp_path: Path) -> None:
    rows = [talk(f"<think>\na\n</think>\n{'Yes.' if n % 3 else n}", asked=f"q {n}") for n in range(30)]
    assert [f.said for f in check([written(tmp_path, rows)], Rules()).findings.values()] == ["20 of 30: 'yes.'"]


def test_every_finding_is_provoked_here() -> None:
    others = {
        "duplicate",
        "contradiction",
        "contaminated",
        "too-long",
        "no-label",
        "few-reasoning",
        "dominating-answer",
    }
    assert set(FAULTS) | others == set(KINDS)


def written(folder: Path, rows: list[Any], name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_json_csv_and_compressed_files_hold_the_same_rows(tmp_path: Path) -> None:
    lines = written(tmp_path, [SAME["alpaca"]] * 2)
    (tmp_path / "data.json").write_text(json.dumps([SAME["alpaca"]] * 2))
    (tmp_path / "inner.json").write_text(json.dumps({"data": [SAME["alpaca"]] * 2}))
    (tmp_path / "lines.json").write_text(lines.read_text())
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines.read_bytes()))
    (tmp_path / "data.csv").write_text(f'instruction,output\n"{ASKED}","{THINKING}"\n' + f'"{ASKED}","{THINKING}"\n')
    for name in ("data.jsonl", "data.json", "inner.json", "lines.json", "data.jsonl.gz", "data.csv"):
        checked = check([tmp_path / name], Rules())
        assert (checked.rows, checked.reasoning, [f.name for f in checked.findings.values()]) == (2, 2, ["duplicate"])


def test_a_row_of_csv_with_too_few_cells_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("prompt,completion\na\nb,c,d\n")
    (found,) = check([tmp_path / "data.csv"], Rules()).findings.values()
    assert (found.name, found.rows) == ("unreadable-row", [1, 2])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "no kind of data"),
        ("a", b"x", "no kind of data"),
        ("a.json", b"{", "cannot read"),
        ("a.json", b"5", "no list of rows"),
        ("a.csv", b"\xff\xfe\x00", "cannot read"),
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.parquet", b"PAR1", "cannot read"),
    ],
)
def test_a_file_that_is_no_data_is_one_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        check([tmp_path / name], Rules())


def test_absent_files_and_folders_are_said(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    for name, said in (("absent.json", "no such file"), ("folder.json", "not a file")):
        with pytest.raises(UsageError, match=said):
            check([tmp_path / name], Rules())


@given(st.lists(st.text("ab ", min_size=1), min_size=1, max_size=20), st.text("ab "))
def test_held_out_questions_are_always_found(questions: list[str], other: str) -> None:
    held = HeldOut()
    for question in questions:
        held.add(question)
    assert all(held.holds(q) for q in questions)
    if len(other.split()) < 13 and other not in questions:
        assert not held.holds(other)


def test_the_command_ends_with_1_where_training_would_stop(tmp_path: Path) -> None:
    good, bad = written(tmp_path, [GOOD], "good.jsonl"), written(tmp_path, [GOOD, "[]"], "bad.jsonl")
    run = CliRunner()
    fine = run.invoke(cli, ["tune", "check", str(good), "--json"], standalone_mode=False)
    assert fine.return_value == 0
    assert json.loads(fine.stdout)["reasoning_share"] == 1.0
    found = run.invoke(cli, ["tune", "check", str(bad), "--json"], standalone_mode=False)
    assert found.return_value == 1
    assert [(f["name"], f["rows"], f["level"]) for f in json.loads(found.stdout)["findings"]] == [
        ("unreadable-row", [2], "error")
    ]
    assert "unreadable-row" in run.invoke(cli, ["tune", "check", str(bad)], standalone_mode=False).stdout
