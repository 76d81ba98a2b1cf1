"""What a conversion needs, planned before its first byte; the command lines; what no answer is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds.converter.environment import converter_argv, converter_environment
from nemotron_ops.errors import BuildError, FitError, HostError, UsageError
from nemotron_ops.models.checkpoint.shapes import Stored
from nemotron_ops.operations.calibration import TEXT_BYTES, calibration_text, imatrix_argv
from nemotron_ops.operations.convert_check import fault_of
from nemotron_ops.operations.convert_plan import check_room, plan_of, quants_of

MILLIARD = 10**9
MODEL = [
    Stored(name="a.weight", kind="BF16", shape=(MILLIARD // 1000, 1000)),
    Stored(name="norm.weight", kind="BF16", shape=(1000,)),
]


def test_quants_are_a_list_with_commas_each_once() -> None:
    assert quants_of("q8_0, Q4_K_M,Q8_0") == ("Q8_0", "Q4_K_M")
    for wrong in ("Q9", "", ",", "Q8_0,nonsense"):
        with pytest.raises(UsageError, match="no type of GGUF weights"):
            quants_of(wrong)


def test_a_milliard_weights_are_planned_with_each_file_that_is_written() -> None:
    plan = plan_of(MODEL, ("Q8_0", "Q4_K_M"), fetch_bytes=2 * MILLIARD)
    assert plan.outtype == "bf16"
    assert 2.0e9 < plan.whole_bytes < 2.1e9
    assert 1.0625e9 < plan.quant_bytes["Q8_0"] < 1.3e9
    assert plan.quant_bytes["Q4_K_M"] < plan.quant_bytes["Q8_0"]
    assert plan.disk_bytes > 2 * MILLIARD + plan.whole_bytes + sum(plan.quant_bytes.values())
    assert plan.memory_bytes > 12 * MILLIARD


def test_too_little_disk_or_memory_is_told_before_anything_is_written() -> None:
    plan = plan_of(MODEL, ("Q8_0",))
    enough = {"free_bytes": plan.disk_bytes, "free_memory_bytes": plan.memory_bytes, "folder": "/work"}
    check_room(plan, "x", **enough)  # type: ignore[arg-type]
    with pytest.raises(HostError, match="are free in /work"):
        check_room(plan, "x", **enough | {"free_bytes": plan.disk_bytes - 1})  # type: ignore[arg-type]
    with pytest.raises(FitError, match="of memory"):
        check_room(plan, "x", **enough | {"free_memory_bytes": plan.memory_bytes - 1})  # type: ignore[arg-type]


def test_the_converter_is_the_sources_own_and_a_source_without_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "convert_hf_to_gguf.py").touch()
    python, ck, out = Path("/env/bin/python"), Path("/w/staged"), Path("/w/whole.part.gguf")
    end = ["/w/staged", "--outfile", "/w/whole.part.gguf", "--outtype", "bf16"]
    plain = converter_argv(python, tmp_path, ck, out, outtype="bf16", pre="")
    assert plain == ["/env/bin/python", str(tmp_path / "convert_hf_to_gguf.py"), *end]
    named = converter_argv(python, tmp_path, ck, out, outtype="bf16", pre="pixtral")
    assert (Path(named[1]).name, named[2:]) == ("pre_tokenizer.py", [str(tmp_path), "pixtral", *end])
    with pytest.raises(BuildError, match=r"no convert_hf_to_gguf\.py"):
        converter_argv(python, tmp_path / "other", ck, out, outtype="bf16", pre="")


def test_the_converter_gets_no_secret_and_no_network() -> None:
    env = converter_environment({"HF_TOKEN": "hf_secret", "PYTHONPATH": "/x", "PATH": "/bin", "NO_LOCAL_GGUF": "1"})
    assert env == {
        "PATH": "/bin", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip


def test_the_calibration_text_is_the_docs_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("first")
    (tmp_path / "docs" / "long.md").write_text("x" * 2 * TEXT_BYTES)
    (tmp_path / "docs" / "code.cpp").write_text("not this")
    text = calibration_text(tmp_path)
    assert text.startswith("first\n\nxxx")
    assert len(text) == TEXT_BYTES + 2
    words = imatrix_argv(Path("/b/llama-imatrix"), Path("/w/whole.gguf"), Path("/w/t.txt"), Path("/w/i.gguf"))
    assert words[:7] == ["/b/llama-imatrix", "-m", "/w/whole.gguf", "-f", "/w/t.txt", "-o", "/w/i.gguf"]


def token(text: str, logprob: Any = -0.5) -> dict[str, Any]:
    return {"token": text, "logprob": logprob}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([], "it says nothing"),
        ([token("a"), token("b", math.nan)], "its probabilities are no numbers"),
        ([token("a"), token("b", None)], "its probabilities are no numbers"),
        ([token("!")] * 16, "it repeats '!'"),
        ([token("four"), token(".")], ""),
        ([token(letter) for letter in "abcdefghijklmnopqrst"], ""),
    ],
)
def test_an_answer_that_no_good_file_gives_is_a_fault(said: list[dict[str, Any]], fault: str) -> None:
    assert fault_of(said) == fault
