"""Flags of a real `--help` (llama.cpp v0.5.0): each is classified, and only allowed ones are passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.engine.flag_lists import ALLOWED, DENIED, OWNED
from nemotron_ops.engine.flags import Flag, Flags, Kind, checked_args, classify, parse_help
from nemotron_ops.errors import UsageError

NEWER = {"--nextn", "--spec-draft-sampling"}  # of llama.cpp after v0.5.0


@pytest.fixture(scope="module")
def flags() -> Flags:
    return parse_help((Path(__file__).parent / "data/llama-server-help.txt").read_text())


def test_every_flag_of_the_pinned_build_is_classified(flags: Flags) -> None:
    unknown = [f.spellings for f in flags.flags if classify(f).kind is Kind.UNKNOWN]
    assert unknown == []
    assert len(flags.flags) > 200


def test_the_lists_name_only_flags_that_exist(flags: Flags) -> None:
    assert {s for s in (*ALLOWED, *DENIED, *OWNED) if flags.find(s) is None} == NEWER


def test_no_flag_stands_in_two_lists() -> None:
    assert not (ALLOWED & DENIED.keys()) | (ALLOWED & OWNED.keys()) | (DENIED.keys() & OWNED.keys())


@pytest.mark.parametrize(
    ("word", "spellings", "value", "env"),
    [
        ("-c", ("-c", "--ctx-size"), "N", "LLAMA_ARG_CTX_SIZE"),
        ("--flash-attn", ("-fa", "--flash-attn"), "[on|off|auto]", "LLAMA_ARG_FLASH_ATTN"),
        ("--metrics", ("--metrics",), "", "LLAMA_ARG_ENDPOINT_METRICS"),
        ("-nocb", ("-cb", "--cont-batching", "-nocb", "--no-cont-batching"), "", "LLAMA_ARG_CONT_BATCHING"),
        ("--control-vector-layer-range", ("--control-vector-layer-range",), "START END", ""),
        ("--gpu_layers", ("-ngl", "--gpu-layers", "--n-gpu-layers"), "N", "LLAMA_ARG_N_GPU_LAYERS"),
    ],
)
def test_help_is_read_with_all_spellings_values_and_variables(
    flags: Flags, word: str, spellings: tuple[str, ...], value: str, env: str
) -> None:
    assert flags.find(word) == Flag(spellings=spellings, value=value, env=env)


@pytest.mark.parametrize(
    "words",
    [
        ["--tools", "exec_shell_command"],
        ["--agent"],
        ["--mcp-servers-json", "{}"],
        ["--log-file", "/x"],
        ["--lora", "/x"],
        ["--media-path", "/"],
        ["--rpc", "10.0.0.1:1"],
        ["--model-url", "http://x"],
        ["-hf", "a/b"],
        ["--path", "/"],
        ["--host", "0.0.0.0"],
        ["--port", "1"],
        ["--api-key", "x"],
        ["--slot-save-path", "/"],
        ["--cache-reuse", "256"],
        ["--context-shift"],
        ["--models-dir", "/"],
        ["-c", "1000000"],
        ["--grammar-file", "/etc/passwd"],
        ["--help"],
        ["--chat-template-file", "/x"],
        ["--override-tensor", "x=CPU"],
    ],
)
def test_what_reaches_files_hosts_shells_or_the_plan_is_refused(flags: Flags, words: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot pass"):
        checked_args(words, flags)


def test_an_alternative_spelling_does_not_get_past_the_list(flags: Flags) -> None:
    for word in ("--log_file", "-no-ag", "--no-agent", "-ag"):
        with pytest.raises(UsageError, match="cannot pass"):
            checked_args([word, "x"], flags)


def test_allowed_flags_pass_as_they_are(flags: Flags) -> None:
    words = ["--numa", "numactl", "--top_k", "20", "--no-warmup", "--seed", "-1", "--reasoning-budget", "-1"]
    assert checked_args(words, flags) == tuple(words)
    assert checked_args(words, None) == tuple(words)


def test_a_mistyped_flag_is_refused_with_the_nearest_spelling(flags: Flags) -> None:
    with pytest.raises(UsageError, match="no such flag") as caught:
        checked_args(["--reasoning-budgt", "1"], flags)
    assert "--reasoning-budget" in str(caught.value.hint)


def test_a_value_glued_on_with_an_equals_sign_is_explained(flags: Flags) -> None:
    with pytest.raises(UsageError) as caught:
        checked_args(["--top-k=20"], flags)
    assert caught.value.hint == "write --top-k 20"


def test_a_missing_or_stray_value_is_refused(flags: Flags) -> None:
    with pytest.raises(UsageError, match="value"):
        checked_args(["--top-k"], flags)
    with pytest.raises(UsageError, match="a flag was expected"):
        checked_args(["--no-warmup", "stray"], flags)


def test_a_flag_that_a_new_llama_cpp_added_is_refused_until_it_is_listed() -> None:
    flags = Flags(flags=(Flag(spellings=("--brand-new",), value="N"),))
    with pytest.raises(UsageError, match="not on nemotron-ops's list"):
        checked_args(["--brand-new", "1"], flags)


@pytest.mark.parametrize(("removed", "now"), [("--mlock", "--load-mode mlock"), ("--no-mmap", "--load-mode none")])
def test_a_flag_that_was_replaced_names_its_successor(removed: str, now: str) -> None:
    newer = Flags(flags=(Flag(spellings=("-lm", "--load-mode")), Flag(spellings=("--no-mmproj",))))
    with pytest.raises(UsageError) as caught:
        checked_args([removed], newer)
    assert now in str(caught.value.hint)
    assert "did you mean" not in str(caught.value.hint)
