"""Which of llama-server's flags llama-bench gets."""

from __future__ import annotations

from nemotron_ops.measure.llama_bench import flags_of


def test_flags_that_both_have_are_passed_as_llama_bench_spells_them() -> None:
    argv = (
        "llama-server", "--model", "m.gguf", "--ctx-size", "4096", "--threads", "8", "--n-gpu-layers", "99",
        "--tensor-split", "1,2", "--device", "CUDA0,CUDA1", "--flash-attn", "on", "--temp", "1.0", "--metrics",
        "--prio", "3",
    )  # fmt: skip
    assert flags_of(argv) == (
        "--threads", "8", "--n-gpu-layers", "99", "--tensor-split", "1/2", "--device", "CUDA0/CUDA1",
        "--flash-attn", "on", "--prio", "3",
    )  # fmt: skip


def test_all_gpu_layers_are_the_default() -> None:
    assert flags_of(("llama-server", "--n-gpu-layers", "all", "--threads", "2")) == ("--threads", "2")
