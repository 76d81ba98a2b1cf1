"""Real last lines of llama-server's log, and their causes. From runs of v0.5.0 unless another source is named."""

# ruff: noqa: E501 - log lines as llama-server prints them

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemotron_ops.engine import deaths
from nemotron_ops.engine.death_table import GPU_ERRORS, TABLE, Cause
from nemotron_ops.engine.deaths import HOPELESS, explain, in_words
from nemotron_ops.engine.flags import parse_help

FAILED = "srv    load_model: failed to load model, '/m/x.gguf'"
EXITING = "main: exiting due to model loading error"

TEXTS: list[tuple[Cause, int, list[str]]] = [
    (Cause.BAD_FLAG, 1, ["error: invalid argument: --ctx-sizze"]),
    (Cause.BAD_VALUE, 1, ['error while handling argument "--port": stoi', "", "usage:"]),
    (Cause.BAD_VALUE, 1, ["context type MTP requested but model doesn't contain MTP layers", EXITING]),
    (Cause.DEVICE_MISSING, 1, ['error while handling argument "--device": invalid device: CUDA7', "", "usage:"]),
    (Cause.MODEL_MISSING, 1, ["gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (No such file or directory)", EXITING]),
    (Cause.MODEL_MISSING, 1, ["gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (Permission denied)", EXITING]),
    (Cause.MODEL_TRUNCATED, 1, [
        "llama_model_load: error loading model: tensor 'blk.2.ssm_in.weight' data is not within the file bounds, "
        "model is corrupted or incomplete", FAILED, EXITING]),
    (Cause.MODEL_TRUNCATED, 1, ["gguf_init_from_file_impl: failed to read key-value pairs", FAILED, EXITING]),
    (Cause.MODEL_TRUNCATED, 1, ["gguf_init_from_file_impl: failed to read magic", FAILED]),
    (Cause.MODEL_CORRUPT, 1, ["gguf_init_from_file_impl: invalid magic characters: '<!do', expected 'GGUF'", FAILED]),
    (Cause.MODEL_CORRUPT, 1, [
        "gguf_init_from_file_impl: this GGUF file is version 99 but this software only supports up to version 3", FAILED]),
    (Cause.MODEL_CORRUPT, 1, ["check_tensor_dims: tensor 'token_embd.weight' not found", FAILED, EXITING]),
    (Cause.UNKNOWN_ARCHITECTURE, 1, [
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'nemotron_9_moe'",
        FAILED, EXITING]),
    (Cause.HOST_MEMORY, 1, [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 24414.06 MB)",
        "alloc_tensor_range: failed to allocate CPU buffer of size 25600000000", "failed to allocate buffer for kv cache", EXITING]),
    (Cause.HOST_MEMORY, 1, ["graph_reserve: failed to allocate compute buffers", "failed to allocate compute pp buffers", EXITING]),
    (Cause.HOST_MEMORY, 134, ["terminate called after throwing an instance of 'std::bad_alloc'"]),
    # ggml/src/ggml-cuda/ggml-cuda.cu:893 and src/llama-model.cpp:1792
    (Cause.DEVICE_MEMORY, 1, [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 22000.00 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer", FAILED, EXITING]),
    (Cause.DEVICE_MEMORY, 1, ["llama_model_load: error loading model: unable to allocate CUDA1 buffer", EXITING]),
    # ggml/src/ggml-cuda/ggml-cuda.cu:100
    (Cause.GPU_ERROR, -6, ["CUDA error: an illegal memory access was encountered", "  current device: 0, in function x at y.cu:12"]),
    (Cause.RESOURCE_LIMIT, 134, ["terminate called after throwing an instance of 'std::system_error'",
                                 "  what():  Resource temporarily unavailable"]),
    (Cause.ADDRESS, 1, ["srv start: couldn't bind HTTP server socket, hostname: /r/x.sock, port: 0", "exiting due to HTTP server error"]),
    (Cause.ASSERTION, -6, ["/src/llama-context.cpp:3322: GGML_ASSERT(nread <= state_size) failed"]),
    (Cause.ILLEGAL_INSTRUCTION, -4, ["llama_model_loader: loaded meta data"]),
    (Cause.CRASH, -11, ["srv update_slots: run slots"]),
    (Cause.BINARY_MISSING, 127, ["llama-server: error while loading shared libraries: libcudart.so.13: cannot open shared object"]),
    (Cause.KILLED, -9, ["srv update_slots: run slots"]),
    (Cause.KILLED, -15, ["srv load_model: loading model"]),
    (Cause.STOPPED, 0, ["srv operator(): cleaning up before exit..."]),
    (Cause.UNKNOWN, 3, ["something new"]),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "code", "log"), TEXTS, ids=[f"{c}-{n}" for n, (c, _, _) in enumerate(TEXTS)])
def test_last_words_tell_the_cause(cause: Cause, code: int, log: list[str]) -> None:
    death = explain(code, ["0.00 I starting", *log])
    assert death.cause is cause
    assert death.what
    assert death.tail[-1] == log[-1]


def test_every_cause_that_a_person_can_act_on_has_a_next_step() -> None:
    silent = {Cause.STOPPED, Cause.UNKNOWN}
    without = {c for c, code, log in TEXTS if not explain(code, log).hint} - silent - {Cause.KILLED}
    assert without == set()


def test_every_cause_of_the_table_has_a_real_text_here() -> None:
    assert {r.cause for r in TABLE} <= {c for c, _, _ in TEXTS}


def test_a_bad_flag_comes_with_the_nearest_one_that_the_binary_knows() -> None:
    flags = parse_help((Path(__file__).parent / "data/llama-server-help.txt").read_text())
    assert "--ctx-size" in explain(1, ["error: invalid argument: --ctx-sizze"], flags=flags).hint


def test_the_kernels_word_beats_the_log() -> None:
    death = explain(-9, ["CUDA error: out of memory"], oom_killed=True)
    assert death.cause is Cause.OOM_KILLER
    assert death.memory


def test_a_kill_from_outside_is_not_blamed_on_what_the_log_said_before() -> None:
    assert explain(-9, ["failed to allocate compute pp buffers"]).cause is Cause.KILLED


def test_a_death_that_nobody_saw_is_told_by_its_log() -> None:
    death = explain(None, ["CUDA error: an illegal memory access was encountered"])
    assert death.cause is Cause.GPU_ERROR
    assert "without a supervisor" in death.how


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exited with code 1"), (-9, "ended by signal 9 (SIGKILL)"), (134, "ended by signal 6 (SIGABRT)"),
        (-64, "ended by signal 64"), (None, "ended without a supervisor"),
    ],
)  # fmt: skip
def test_exit_codes_are_said_in_words(code: int | None, words: str) -> None:
    assert in_words(code) == words


def test_what_a_retry_cannot_cure_is_hopeless_and_memory_is_not() -> None:
    assert explain(1, ["error: invalid argument: --x"]).hopeless
    assert not explain(-9, []).hopeless
    assert not {Cause.HOST_MEMORY, Cause.DEVICE_MEMORY, Cause.GPU_ERROR, Cause.KILLED} & HOPELESS


# ---- lines that a client wrote

SAID = [line for _, _, log in TEXTS for line in log]
CODES = (0, 1, 3, 127, -4, -6, -8, -9, -11, -15, 134, 139, None)


@pytest.mark.parametrize("code", CODES)
def test_no_line_of_a_log_decides_once_the_process_was_ready(code: int | None) -> None:
    silent = explain(code, [], served=True)
    for line in (*SAID, *(f"0.01.234.567 I {line}" for line in SAID)):
        said = explain(code, [line], served=True)
        assert (said.cause, said.what, said.hint) == (silent.cause, silent.what, silent.hint), line
        assert not said.hopeless
        assert not said.memory


def test_a_gpu_error_in_llama_cpps_own_words_is_named_and_nothing_else_of_its_line_is_quoted() -> None:
    line = "0.12.345.678 E CUDA error: an illegal memory access was encountered; said by a client"
    death = explain(-6, [line], served=True)
    assert death.cause is Cause.GPU_ERROR
    assert "illegal memory access" in death.what
    assert "client" not in death.line
    unknown = explain(134, ["0.12.345.678 E CUDA error: said by a client"], served=True)
    assert unknown.cause is Cause.GPU_ERROR
    assert "client" not in unknown.line
    assert not explain(-6, ["0.12.345.678 E CUDA error: out of memory"], served=True).memory
    assert explain(-11, [line], served=True).cause is Cause.CRASH


def test_a_segmentation_fault_is_never_a_lack_of_memory() -> None:
    assert not any(explain(-11, [line]).memory for line in SAID)


def test_the_kernels_verdict_counts_for_a_process_that_was_ready() -> None:
    assert explain(-9, [], oom_killed=True, served=True).memory


HOSTILE = ("x" * 100_000, "tensor '" * 12_000, "error: invalid argument: " * 4_000, "/a:1: " * 16_000)


def test_only_the_beginning_of_a_line_is_searched() -> None:
    """Every pattern is given the lines of `readable`: rows x lines x 500 characters bound the work."""
    assert [len(line) for line in deaths.readable(HOSTILE)] == [deaths.LINE_CHARS] * len(HOSTILE)
    late = "x" * deaths.LINE_CHARS + " error: invalid argument: --late"
    assert explain(3, [late]).cause is Cause.UNKNOWN
    assert max(len(line) for line in explain(3, HOSTILE).tail) <= deaths.LINE_CHARS


def test_no_pattern_tries_a_repeat_at_every_character() -> None:
    for pattern in (*(row.pattern for row in TABLE), *(pattern for pattern, _ in GPU_ERRORS)):
        assert not re.match(r"[(?:]*(?:\.|\\[SswWdD]|\[)", pattern), pattern
