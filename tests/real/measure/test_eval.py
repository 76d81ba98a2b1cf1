"""`eval` with the tiny models: tasks, perplexity, KL divergence, lm-eval. Compiles llama-perplexity once per machine.

Costs 30 s; on a new machine 6 min more, for llama-perplexity and for an environment with lm-eval.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nemotron_ops.builds.more_programs import have_program
from nemotron_ops.builds.store import store
from nemotron_ops.installation import Installation as Here
from nemotron_ops.measure.quality.lm_harness import have_environment
from nemotron_ops.paths import user_layout
from tests.stages.installation import Installation

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(1200)]
FEW = ("--items", "10", "--max-tokens", "40", "--context", "400")


@pytest.fixture(scope="module")
def of_machine() -> Here:
    return Here(layout=user_layout(dict(os.environ), uid=os.getuid()), env=dict(os.environ))


@pytest.fixture
def with_programs(installation: Installation, of_machine: Here, llama_bin: Path) -> Installation:
    """The private installation with this machine's llama-perplexity."""
    build = store.find(of_machine.layout, llama_bin.parent.name)
    program = have_program(build, "llama-perplexity", of_machine)
    cache = installation.home / "cache" / "programs"
    cache.mkdir(parents=True)
    (cache / build.id).symlink_to(program.parent)
    return installation


def test_quants_are_compared_item_by_item_and_token_by_token(with_programs: Installation, tmp_path: Path) -> None:
    page = tmp_path / "eval.html"
    words = ("eval", "tiny", "--against", "tiny:Q4_0", *FEW, "--perplexity", "--chunks", "2", "--html", str(page))
    found = with_programs.json(*words)
    one, other = found["models"]
    assert (one["label"], other["label"]) == ("tiny", "tiny:Q4_0")
    by_task = {s["task"]: s for s in one["scores"]}
    assert by_task["tool-use, raw"]["right"] == 2  # it answers in words where no tool fits, and calls the wrong ones
    assert all(s["errors"] == 0 for s in one["scores"])
    assert found["divergence"]["same_top"] == 1.0  # both are wired to the same sentences
    assert found["divergence"]["mean"] == pytest.approx(0, abs=1e-4)
    assert len(found["perplexity"]) == 2
    assert json.loads(Path(found["kept"]).read_text())["asked"]["items"] == 10
    assert "Quality of tiny" in page.read_text()


def test_a_build_can_be_the_reference(installation: Installation, llama_bin: Path) -> None:
    words = ("eval", "tiny", "--against", llama_bin.parent.name, "--tasks", "arithmetic", *FEW)
    found = installation.json(*words)
    assert found["models"][1]["label"] == f"tiny {llama_bin.parent.name}"
    assert found["models"][0]["grades"] == found["models"][1]["grades"]


def test_mistakes_are_told(installation: Installation) -> None:
    assert "did you mean arithmetic" in installation.run("eval", "tiny", "--tasks", "arithmatic", code=2).stderr
    assert "there is no such recipe" in installation.run("eval", "tiny", "--against", "nix", *FEW, code=3).stderr
    assert "no supervisor is running" in installation.run("eval", code=2).stderr


TASK = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "What is {{a}} + {{b}}?"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 40}
metric_list: [{metric: exact_match}]
"""


def test_lm_eval_asks_the_endpoint(installation: Installation, of_machine: Here, tmp_path: Path) -> None:
    python = have_environment(of_machine)
    (installation.home / "cache").mkdir(exist_ok=True)
    (installation.home / "cache" / "environments").symlink_to(python.parents[2])
    data = tmp_path / "sums.jsonl"
    rows = [{"a": 2, "b": 2, "answer": "2 + 2 = 4."}, {"a": 3, "b": 4, "answer": "7"}]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(TASK.replace("DATA", str(data)))
    own = installation.with_env({"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"})
    words = (
        "eval",
        "tiny",
        "--tasks",
        "arithmetic",
        *FEW,
        "--lm-eval",
        "sums",
        "--lm-eval-tasks",
        str(tmp_path / "tasks"),
    )
    ((score,),) = own.json(*words)["lm_eval"]
    assert (score["task"], score["value"]) == ("sums", 0.5)
