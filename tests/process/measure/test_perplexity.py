"""llama-perplexity that loses the end of its log, as a script: runs are repeated until the result is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_ops.errors import EngineError
from nemotron_ops.measure.quality.perplexity import ATTEMPTS, LostEnd, Subject, divergence, perplexity
from nemotron_ops.progress import Step, silent

pytestmark = pytest.mark.process
LOSES = """#!/bin/sh
runs={folder}/runs
echo x >> $runs
echo "perplexity: calculating perplexity over 2 chunks"
echo "[1]4.0,[2]5.0,"
if [ $(wc -l < $runs) -le {lost} ]; then exit {code}; fi
{end}
"""
FINAL = 'echo "Final estimate: PPL = 5.1234 +/- 0.05678"'
KL = """echo "Mean PPL(Q)/PPL(base)    :   1.001 ±   0.002"
echo "Mean    KLD:   0.001 ±   0.0001"
echo "Median  KLD:   0.0005"
echo "Maximum KLD:   0.1"
echo "99.0%   KLD:   0.05"
echo "Same top p: 99.000 ± 0.100 %"
"""


def losing(folder: Path, *, lost: int, end: str = FINAL, code: int = 0) -> Subject:
    """A program that ends with `code` and without `end` in its first `lost` runs."""
    program = folder / "llama-perplexity"
    program.write_text(LOSES.format(folder=folder, lost=lost, end=end, code=code))
    program.chmod(0o755)
    return Subject(program=program, model=folder / "m.gguf")


def runs_in(folder: Path) -> int:
    return len((folder / "runs").read_text().split())


def test_a_run_that_lost_its_end_is_repeated(tmp_path: Path) -> None:
    said: list[Step] = []
    subject = losing(tmp_path, lost=2)
    found = perplexity(subject, tmp_path / "text", chunks=2, context=64, env=os.environ, report=said.append)
    assert (found.value, found.error) == (5.1234, 0.05678)
    assert runs_in(tmp_path) == 3
    assert sum("lost the end of its log" in s.note for s in said) == 2


def test_a_divergence_that_lost_its_end_is_repeated(tmp_path: Path) -> None:
    reference = losing(tmp_path, lost=3, end=KL)  # one run for the reference, two that lose their end
    found = divergence(reference, reference, tmp_path / "text", chunks=2, context=64, env=os.environ, report=silent)
    assert (found.mean, found.same_top) == (0.001, 0.99)
    assert runs_in(tmp_path) == 4


def test_a_program_that_never_prints_its_result_is_given_up(tmp_path: Path) -> None:
    subject = losing(tmp_path, lost=10**6)
    with pytest.raises(LostEnd, match="printed none"):
        perplexity(subject, tmp_path / "text", chunks=2, context=64, env=os.environ, report=silent)
    assert runs_in(tmp_path) == ATTEMPTS


def test_a_program_that_fails_is_not_repeated(tmp_path: Path) -> None:
    subject = losing(tmp_path, lost=10**6, code=1)
    with pytest.raises(EngineError, match="ended with 1"):
        perplexity(subject, tmp_path / "text", chunks=2, context=64, env=os.environ, report=silent)
    assert runs_in(tmp_path) == 1
