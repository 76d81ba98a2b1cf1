"""The whole command line of llama-server and llama-cli, word by word."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from nemotron_ops.engine.args import FLAGS, NOT_FLAGS, cli_argv, server_argv
from nemotron_ops.engine.flags import Flag, Flags
from nemotron_ops.errors import EngineError, UsageError
from nemotron_ops.recipes.schema import Server

FRAME = (
    "/b/llama-server --model /m/x.gguf --alias a/b --host {socket} --api-key-file {api_key_file} --metrics --slots "
    "--no-ui --offline --log-colors off --log-prefix --log-timestamps"
)


def argv(**more: Any) -> str:
    base: dict[str, Any] = {"settings": {}, **more}
    made = server_argv(
        binary="/b/llama-server",
        model="/m/x.gguf",
        socket="{socket}",
        api_key_file="{api_key_file}",
        alias="a/b",
        **base,
    )
    return " ".join(made)


def test_nothing_asked_for_gives_only_what_must_not_be_left_to_defaults() -> None:
    assert argv() == FRAME


def test_the_guides_server_line_keeps_its_flags_and_their_values() -> None:
    settings = {"prio": 3, "min_p": 0.01, "temp": 0.6, "top_p": 0.95, "ctx_size": 16384, "port": 8001}
    assert argv(settings=settings) == f"{FRAME} --ctx-size 16384 --prio 3 --temp 0.6 --top-p 0.95 --min-p 0.01"


def test_every_setting_has_its_flag_in_a_fixed_order() -> None:
    settings = {
        "ctx_size": 8192,
        "parallel": 4,
        "kv_unified": True,
        "n_gpu_layers": "all",
        "n_cpu_moe": 8,
        "split_mode": "layer",
        "tensor_split": "1,1",
        "main_gpu": 0,
        "flash_attn": "on",
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "batch_size": 2048,
        "ubatch_size": 512,
        "threads": 8,
        "threads_batch": 16,
        "prio": -1,
        "load_mode": "mmap",
        "ctx_checkpoints": 4,
        "cache_ram_mib": 0,
        "seed": 3407,
        "temp": 1.0,
        "top_p": 1.0,
        "top_k": 40,
        "min_p": 0.05,
        "special": True,
        "spec_type": "draft-mtp",
    }
    assert argv(settings=settings, device="CUDA0", slot_save_path="{slots_dir}").removeprefix(FRAME + " ") == (
        "--device CUDA0 --slot-save-path {slots_dir} --ctx-size 8192 --parallel 4 --kv-unified --n-gpu-layers all "
        "--n-cpu-moe 8 --split-mode layer --tensor-split 1,1 --main-gpu 0 --flash-attn on --cache-type-k q8_0 "
        "--cache-type-v q8_0 --batch-size 2048 --ubatch-size 512 --threads 8 --threads-batch 16 --prio -1 "
        "--load-mode mmap --ctx-checkpoints 4 --cache-ram 0 --seed 3407 --temp 1.0 --top-p 1.0 "
        "--top-k 40 --min-p 0.05 --special "
        "--spec-type draft-mtp --prio-batch 0"
    )


def test_a_batch_priority_follows_only_where_batch_threads_are_set() -> None:
    assert "--prio-batch" not in argv(settings={"prio": 3})
    assert argv(settings={"prio": 3, "threads_batch": 2}).endswith("--prio 3 --prio-batch 3")


def test_switches_that_are_off_use_their_negation_or_nothing() -> None:
    assert argv(settings={"kv_unified": False, "special": False}) == f"{FRAME} --no-kv-unified"


def test_every_field_of_a_recipes_server_table_is_a_known_setting() -> None:
    assert {f.name for f in fields(Server)} == set(FLAGS) | NOT_FLAGS


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(EngineError, match="'ctx' is not a setting"):
        argv(settings={"ctx": 1})


def test_a_setting_that_the_build_lacks_is_an_error_that_names_the_flag() -> None:
    flags = Flags(flags=(Flag(spellings=("-c", "--ctx-size"), value="N"), Flag(spellings=("--no-webui",))))
    assert "--no-webui" in argv(settings={"ctx_size": 1}, flags=flags)
    with pytest.raises(EngineError, match="setting n_cpu_moe: this llama"):
        argv(settings={"n_cpu_moe": 1}, flags=flags)


def test_extra_flags_come_last_and_only_if_they_are_allowed() -> None:
    assert argv(extra=["--numa", "distribute"]) == f"{FRAME} --numa distribute"
    with pytest.raises(UsageError, match="cannot pass --log-file"):
        argv(extra=["--log-file", "/etc/passwd"])


def test_a_conversation_gets_the_guides_flags() -> None:
    made = cli_argv(
        binary="/b/llama-cli",
        model="/m/x.gguf",
        settings={"ctx_size": 16384, "seed": 3407, "prio": 2, "temp": 0.6, "top_p": 0.95},
    )
    assert " ".join(made) == (
        "/b/llama-cli --model /m/x.gguf --offline --ctx-size 16384 --prio 2 --seed 3407 --temp 0.6 --top-p 0.95"
    )


def test_a_conversation_can_show_the_thinking_tokens_and_end_after_one_answer() -> None:
    made = cli_argv(
        binary="c",
        model="m",
        settings={"special": True, "parallel": 4},
        prompt="hi",
        single_turn=True,
        verbose_prompt=True,
    )
    assert made == (
        "c",
        "--model",
        "m",
        "--offline",
        "--special",
        "--verbose-prompt",
        "--prompt",
        "hi",
        "--single-turn",
    )
