"""Bytes from headers: the published numbers of the real models, and what cannot be computed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.errors import FitError, ModelError
from nemotron_ops.memory.log import compare, logged_buffers, projected_mib
from nemotron_ops.memory.model import Settings, estimate, settings_from
from nemotron_ops.memory.model_shape import UnknownArchitectureError, model_shape
from nemotron_ops.models import gguf
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.synthetic.container import TensorInfo
from nemotron_ops.models.synthetic.container import header as make_header
from nemotron_ops.models.synthetic.metadata import metadata
from nemotron_ops.models.synthetic.scripts import script_vocabulary
from nemotron_ops.models.synthetic.shape import MOE, tensors
from tests.fakes.shapes import TRANSFORMERS, metadata_of, true_header

MIB = 1 << 20
VOCAB = script_vocabulary()
TINY = make_header(
    metadata(MOE, VOCAB, name="x", quant="Q8_0", template=""),
    [TensorInfo(name=n, size=s, type=GGMLQuantizationType.F32) for n, s in tensors(MOE, len(VOCAB))],
)


@cache
def model(name: str, quant: str = "Q8_0") -> Header:
    return true_header(name, quant)


@pytest.mark.parametrize(
    ("name", "parameters", "kv_per_token", "rs_mib"),
    [("4b", 3.974e9, 16384, 81.09), ("30b", 31.578e9, 6144, 47.62), ("120b", 120.669e9, 8192, 164.69)],
)
def test_the_real_models_cost_what_was_measured(name: str, parameters: float, kv_per_token: int, rs_mib: float) -> None:
    """The counts equal the published ones; KV and state per token and sequence are from llama-server's log."""
    header = model(name)
    counted = 0
    for tensor in header.tensors:
        elements = 1
        for dim in tensor.dims:
            elements *= dim
        counted += elements
    found = estimate(header, Settings(ctx_size=16384, parallel=1))
    assert counted == pytest.approx(parameters, rel=2e-4)
    assert found.kv_per_token == kv_per_token
    assert found.rs_per_sequence / MIB == pytest.approx(rs_mib, abs=0.005)


def test_layers_are_told_apart_by_their_arrays() -> None:
    h = model_shape(model("30b"))
    assert sum(b.recurrent for b in h.blocks) == 23
    assert sum(b.n_kv > 0 for b in h.blocks) == 6
    assert h.expert_blocks == 23
    assert not any(b.recurrent and b.expert_bytes for b in h.blocks)


def test_context_is_padded_and_divided_as_llama_server_does() -> None:
    assert Settings(ctx_size=1000).cells == 1024
    shared = Settings(ctx_size=4096, parallel=3, kv_unified=True)
    split = Settings(ctx_size=4096, parallel=3, kv_unified=False)
    assert (shared.streams, shared.cells) == (1, 4096)
    assert (split.streams, split.cells) == (3, 1536)


def test_quantised_caches_cost_their_rows() -> None:
    def kv(k: str, v: str) -> int:
        return estimate(model("30b"), Settings(ctx_size=32768, cache_type_k=k, cache_type_v=v)).kv

    assert kv("q8_0", "q8_0") / kv("f16", "f16") == pytest.approx(34 / 64)
    assert kv("q4_0", "q4_0") / kv("f16", "f16") == pytest.approx(18 / 64)
    assert kv("f16", "q8_0") == (kv("f16", "f16") + kv("q8_0", "q8_0")) // 2


def test_a_cache_type_that_does_not_exist_is_refused() -> None:
    with pytest.raises(FitError, match="cannot use cache types q9_9"):
        estimate(model("30b"), Settings(ctx_size=4096, cache_type_k="q9_9"))


def test_flags_are_read_as_llama_server_reads_them() -> None:
    auto = settings_from({"ctx_size": 8192})
    assert (auto.parallel, auto.kv_unified, auto.flash_attn) == (4, True, True)
    split = settings_from({"ctx_size": 8192, "parallel": 2, "flash_attn": "off", "ubatch_size": None})
    assert (split.parallel, split.kv_unified, split.flash_attn, split.ubatch_size) == (2, False, False, 512)
    drafting = {"ctx_size": 8192, "spec_type": "draft-mtp"}
    assert settings_from(drafting).draft_tokens == 3
    assert settings_from({**drafting, "extra_args": ("--spec-draft-n-max", "5")}).draft_tokens == 5


def test_mtp_keeps_states_to_roll_back_to_and_needs_its_layers() -> None:
    plain = Settings(ctx_size=8192, parallel=2)
    drafting = Settings(ctx_size=8192, parallel=2, draft_tokens=3)
    with_mtp = true_header("120b-mtp", "Q8_0")
    assert estimate(with_mtp, drafting).rs == 4 * estimate(with_mtp, plain).rs
    assert estimate(with_mtp, drafting).mtp_kv == 8192 * 1024
    assert estimate(with_mtp, plain).mtp_kv == 0
    with pytest.raises(FitError, match="it has no MTP layers"):
        estimate(model("30b"), drafting)


def test_what_grows_later_is_counted_at_its_cap() -> None:
    found = estimate(model("30b"), Settings(ctx_size=8192, parallel=4, ctx_checkpoints=8, cache_ram_mib=2048))
    assert found.checkpoints_max == 8 * 4 * found.rs_per_sequence
    assert found.prompt_cache_max == 2048 * MIB
    assert found.total_bytes == found.start_bytes + found.checkpoints_max + found.prompt_cache_max


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_ordinary_transformers_keep_a_cache_in_every_layer(name: str) -> None:
    shape = TRANSFORMERS[name]
    found = estimate(true_header(name, "Q8_0"), Settings(ctx_size=4096, parallel=1))
    assert found.kv_per_token == shape.n_layer * 2 * 2 * shape.n_head_kv * shape.head_dim
    assert found.rs == found.checkpoints_max == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"general.architecture": "mamba7"}, "architecture mamba7 is not known"),
        ({"llama.attention.sliding_window": 4096}, "with sliding_window is not known"),
        ({"llama.attention.kv_lora_rank": 512}, "with kv_lora_rank is not known"),
    ],
)
def test_an_unknown_architecture_gets_no_number(changes: dict[str, str | int], why: str) -> None:
    pairs = {**metadata_of(TRANSFORMERS["llama-8b"]), **changes}
    data = make_header(pairs, [])
    found = gguf.parse(lambda o, n: data[o : o + n], size=len(data))
    with pytest.raises(UnknownArchitectureError, match=why):
        estimate(found, Settings(ctx_size=4096))


@settings(max_examples=150, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4))
def test_a_mutated_header_gives_numbers_or_a_clear_error(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(TINY)
    for at, patch in edits:
        data[at : at + len(patch)] = patch
    try:
        header = gguf.parse(lambda offset, n: bytes(data[offset : offset + n]), size=len(data))
        found = estimate(header, Settings(ctx_size=4096))
    except (ModelError, FitError) as exc:
        assert exc.message.startswith("cannot ")  # noqa: PT017
        return
    assert found.total_bytes >= found.weights >= 0
    assert found.kv >= 0


LOG = """\
0.00.009.170 I common_params_fit_impl: projected to use 12 MiB of host memory vs. 24105 MiB of total host memory
0.00.013.153 I load_tensors:   CPU_Mapped model buffer size =     2.18 MiB
0.00.013.460 I llama_context:        CPU  output buffer size =     0.00 MiB
0.00.013.507 I llama_kv_cache:        CPU KV buffer size =     2.00 MiB
{"type":"log","time":1,"level":"info","msg":"llama_memory_recurrent:        CPU RS buffer size =     0.42 MiB"}
0.00.016.903 I sched_reserve:      CUDA0 compute buffer size =     8.05 MiB
"""


def test_a_log_is_read_plain_or_as_json(tmp_path: Path) -> None:
    buffers = logged_buffers(LOG.splitlines())
    assert [(b.device, b.kind, b.mib) for b in buffers] == [
        ("CPU_Mapped", "model", 2.18),
        ("CPU", "output", 0.0),
        ("CPU", "KV", 2.0),
        ("CPU", "RS", 0.42),
        ("CUDA0", "compute", 8.05),
    ]
    assert projected_mib(LOG.splitlines()) == 12
    assert projected_mib([]) is None


def test_a_comparison_has_every_kind_and_the_total() -> None:
    found = compare(estimate(model("30b"), Settings(ctx_size=4096)), LOG.splitlines())
    assert [c.kind for c in found] == ["model", "KV", "RS", "compute", "output", "total"]
    assert found[-1].logged_mib == pytest.approx(12.65)
    assert found[4].ratio is None
