"""What users of fine-tuning programs ask for, and the tests that hold it here. Reads the names of tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemotron_ops.errors import HostError
from nemotron_ops.models.gguf import Header, Tensor
from nemotron_ops.operations.tune_merge import check_disk

TESTS = Path(__file__).parents[2]
# requirement -> tests. The same faults were reported of trl, peft, Unsloth, Axolotl, LLaMA-Factory, ms-swift, llama.cpp
HELD_BY = {
    "1: a target that matches no module, or attention alone, is told": (
        "test_a_target_that_matches_nothing_is_an_error",
        "test_attention_alone_leaves_most_layers_without_an_adapter",
        "test_the_default_covers_every_kind_of_layer_and_never_the_router",
    ),
    "2: the router is never trained, experts by one word, with counts": (
        "test_requirement_2_experts_are_trained_by_one_word_and_the_router_never",
        "test_parameters_are_the_published_ones_and_experts_by_default_of_a_dense_model_are_none",
    ),
    "3: no loss on the template's think block": (
        "test_a_reasoning_answer_is_learnt_from_after_the_templates_think",
        "test_a_direct_answer_is_learnt_without_the_templates_empty_think_block",
        "test_nothing_of_the_prompt_is_learnt",
    ),
    "4: the share of reasoning samples is measured, each sample has its own mode": (
        "test_few_reasoning_samples_are_a_warning",
        "test_each_turn_is_a_sample_in_its_own_mode_with_the_history_as_the_server_renders_it",
    ),
    "5: no sample is cut, a loss that is no number stops, an empty adapter is never published": (
        "test_long_rows_are_named_and_never_cut",
        "test_a_loss_that_is_no_number_stops_with_the_last_checkpoint_kept",
        "test_an_adapter_that_is_not_finite_or_all_zero_is_refused",
    ),
    "6: adapters of each kind are written offline, and load": (
        "test_requirement_6_an_adapter_of_experts_loads_and_is_applied",
        "test_the_tune_says_the_new_sentence_and_the_base_does_not",
    ),
    "7: the architecture is that of the base": ("test_the_architecture_follows_the_layers_and_no_default",),
    "8: rslora is right, alpha_pattern is refused": (
        "test_rslora_divides_by_the_root_of_the_rank",
        "test_options_without_a_form_are_refused",
    ),
    "9: embeddings, output matrix and new tokens are refused at plan time": (
        "test_what_would_learn_nothing_or_be_ignored_is_refused_with_its_reason",
        "test_what_no_adapter_file_can_hold_is_refused",
    ),
    "10: an export checks the disk, and uses the build's own programs": (
        "test_requirement_10_a_merge_checks_the_disk_for_both_files",
        "test_a_merged_model_says_the_new_sentence_by_itself",
    ),
    "11: what is trained is what is served, by template and token": (
        "test_a_template_that_renders_the_answer_otherwise_is_refused",
    ),
    "12: 4 bit leaves fused experts in 16 bit": ("test_four_bit_leaves_fused_experts_in_16_bit",),
    "13: memory is predicted, its peak kept, a lack of it classified": (
        "test_the_guide_says_that_4b_fits_a_free_gpu_of_16_gb",
        "test_the_guide_says_that_30b_needs_about_60_gb",
        "test_a_trainer_that_saved_leaves_a_paused_job_and_one_that_ended_its_peak",
        "test_an_end_of_the_trainer_is_told_with_the_setting_to_change",
    ),
    "14: samples are never packed into one row": ("test_only_the_answer_is_learnt_and_padding_is_masked",),
}
OPEN = {
    "15: before an adapter is used for rollouts, engine and trainer agree": "there is no reinforcement learning yet"
}


@pytest.mark.parametrize("requirement", HELD_BY)
def test_each_requirement_is_held_by_tests_that_exist(requirement: str) -> None:
    defined = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)
    known = {name for path in TESTS.rglob("test_*.py") for name in defined.findall(path.read_text())}
    assert set(HELD_BY[requirement]) <= known


def test_all_fifteen_are_listed() -> None:
    assert sorted(int(name.split(":")[0]) for name in (*HELD_BY, *OPEN)) == list(range(1, 16))


def test_requirement_10_a_merge_checks_the_disk_for_both_files(tmp_path: Path) -> None:
    """A base of 2 PB fits on no disk; a small one does."""

    def header(rows: int) -> Header:
        matrix = Tensor(name="a.weight", dims=(1024, rows), type="F16", offset=0, n_bytes=2048 * rows)
        return Header(version=3, values={}, tensors=(matrix,), data_offset=0)

    with pytest.raises(HostError, match="GB are needed") as caught:
        check_disk(tmp_path / "out.gguf", header(10**12), "Q4_K_M")
    assert "without --merge" in (caught.value.hint or "")
    check_disk(tmp_path / "out.gguf", header(10), "Q4_K_M")
    with pytest.raises(HostError, match="cannot write"):
        check_disk(tmp_path / "absent" / "out.gguf", header(10), "Q4_K_M")
