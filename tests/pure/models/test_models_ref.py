"""Which files a model's name means."""

from __future__ import annotations

import pytest

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.models.ref import Ref, RemoteFile, check_shards, choose, file_sets, parse, quant_label, safe_name

NANO = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF"
SUPER = "unsloth/NVIDIA-Nemotron-3-Super-120B-A12B-GGUF"


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name=n, size_bytes=1000, sha256="ab" * 32) for n in names]


def shards(stem: str, count: int) -> list[str]:
    return [f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        (NANO, Ref(repo=NANO)),
        (f"{NANO}:UD-Q4_K_XL", Ref(repo=NANO, quant="UD-Q4_K_XL")),
        (f"https://huggingface.co/{NANO}", Ref(repo=NANO)),
    ],
)
def test_names_are_read(text: str, ref: Ref) -> None:
    assert parse(text) == ref


@pytest.mark.parametrize("text", ["", "30b", "a/b/c", "../etc/passwd", "a/..", "owner/", "o/n:../x", "o/n:a b\n"])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="it names no repository"):
        parse(text)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Nemotron-3-Nano-30B-A3B-Q8_0.gguf", "Q8_0"),
        ("NVIDIA-Nemotron3-Nano-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("BF16/Nemotron-3-Nano-30B-A3B-BF16-00001-of-00002.gguf", "BF16"),
        ("UD-Q4_K_XL/NVIDIA-Nemotron-3-Super-120B-A12B-UD-Q4_K_XL-00001-of-00003.gguf", "UD-Q4_K_XL"),
        ("model.IQ4_NL.gguf", "IQ4_NL"),
        ("Q6_K/model.gguf", "Q6_K"),
        ("gpt-mxfp4.gguf", "MXFP4"),
        ("plain.gguf", ""),
    ],
)
def test_the_quant_is_read_off_the_name_or_the_folder(name: str, label: str) -> None:
    assert quant_label(name) == label


def test_a_quant_is_found_whatever_its_case() -> None:
    listed = files("N-Q8_0.gguf", "N-UD-Q4_K_XL.gguf", "mmproj-F16.gguf", "README.md")
    chosen = choose(listed, parse(f"{NANO}:ud-q4_k_xl"))
    assert (chosen.quant, [f.name for f in chosen.files]) == ("UD-Q4_K_XL", ["N-UD-Q4_K_XL.gguf"])


def test_an_unknown_quant_is_named_with_the_nearest_and_what_there_is() -> None:
    with pytest.raises(ModelError, match="no such quant") as caught:
        choose(files("N-Q8_0.gguf", "N-UD-Q4_K_XL.gguf"), parse(f"{NANO}:UD-Q4_K_L"))
    assert caught.value.hint == "did you mean UD-Q4_K_XL? there are Q8_0, UD-Q4_K_XL"


def test_without_a_quant_the_usual_one_is_taken_and_else_one_must_be_named() -> None:
    assert choose(files("N-Q8_0.gguf", "N-Q4_K_M.gguf"), parse(NANO)).quant == "Q4_K_M"
    with pytest.raises(ModelError, match="none was named"):
        choose(files("N-Q5_K_M.gguf", "N-Q6_K.gguf"), parse(NANO))


def test_shards_come_together_and_in_order() -> None:
    names = shards("UD-Q4_K_XL/X-UD-Q4_K_XL", 3)
    chosen = choose(files(*reversed(names), "X-Q8_0.gguf"), parse(f"{SUPER}:UD-Q4_K_XL"))
    assert [f.name for f in chosen.files] == names


def test_a_missing_shard_is_named() -> None:
    names = shards("X-Q8_0", 3)
    with pytest.raises(ModelError, match=r"X-Q8_0-00002-of-00003\.gguf is missing"):
        choose(files(names[0], names[2]), parse(f"{SUPER}:Q8_0"))


def test_a_foreign_shard_is_named() -> None:
    with pytest.raises(ModelError, match=r"other-00002-of-00002\.gguf is not part of this set"):
        check_shards(["x-00001-of-00002.gguf", "other-00002-of-00002.gguf"])


def test_the_top_folder_wins_over_a_folder_with_the_same_quant() -> None:
    found = file_sets(files("X-Q8_0.gguf", "extra/Y-Q8_0.gguf"))
    assert found["Q8_0"][0].name == "X-Q8_0.gguf"
    assert found["extra/Y-Q8_0"][0].name == "extra/Y-Q8_0.gguf"


def test_two_models_with_one_quant_can_be_told_apart_by_file_name() -> None:
    listed = files("base-Q8_0.gguf", "chat-Q8_0.gguf")
    with pytest.raises(ModelError, match="several files match"):
        choose(listed, parse(f"{NANO}:Q8_0"))
    assert choose(listed, parse(f"{NANO}:chat-Q8_0")).files[0].name == "chat-Q8_0.gguf"


def test_projectors_drafts_and_calibration_data_are_no_models() -> None:
    assert file_sets(files("mmproj-X-F16.gguf", "mtp-X-F16.gguf", "imatrix.gguf", "X-lora-F16.gguf")) == {}


def test_the_projector_comes_only_when_asked_for() -> None:
    listed = files("N-Q8_0.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf")
    assert choose(listed, parse(f"{NANO}:Q8_0")).mmproj is None
    found = choose(listed, parse(f"{NANO}:Q8_0"), mmproj=True).mmproj
    assert found is not None
    assert found.name == "mmproj-F16.gguf"


def test_a_repository_without_gguf_files_says_so() -> None:
    with pytest.raises(ModelError, match="it has no GGUF files"):
        choose(files("model.safetensors"), parse("owner/name"))


@pytest.mark.parametrize(
    "name",
    ["../x.gguf", "/etc/x.gguf", "a/../b.gguf", "a//b.gguf", "a\\b.gguf", "x\0.gguf", ".hidden.gguf", "a\n.gguf"],
)
def test_names_that_would_leave_the_folder_are_never_used(name: str) -> None:
    assert not safe_name(name)
    assert file_sets(files(name)) == {}
