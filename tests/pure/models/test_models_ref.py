"""Which files a model's name means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.models.ref import (
    Ref,
    RemoteFile,
    check_shards,
    choose,
    file_sets,
    parse,
    quant_label,
    safe_name,
    shard_names,
)

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


@pytest.mark.parametrize("text", ["", "30b", "a/b/c", "../etc/passwd", "a/..", "owner/", "o/n:../x", "o/n:a\nb"])
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


# ---- what a filter takes away


@pytest.mark.parametrize(
    "name",
    [
        "Nemo-3-Super-MTP-UD-Q4_K_XL.gguf",
        "Nemo-3-9B-MTP.gguf",
        "Nemo-3-imatrix-Q4_K_M.gguf",
        "Nemo 3 Q8_0.gguf",
        "Némo-3-数据-Q8_0.gguf",
        "Nemo,3,Q8_0.gguf",
        "Nemo-3-Q8_0.GGUF",
        "Nemo-[v2]-Q8_0.Gguf",
    ],
)
def test_a_model_with_an_odd_name_is_a_model(name: str) -> None:
    listed = files(name, "mmproj-F16.gguf")
    assert [f.name for f in choose(listed, Ref(repo=NANO)).files] == [name]
    assert [f.name for f in choose(listed, Ref(repo=NANO, quant=name)).files] == [name]


def test_a_small_file_with_mtp_inside_its_name_is_a_draft_beside_its_model() -> None:
    draft = RemoteFile(name="X-MTP-Q8_0.gguf", size_bytes=249, sha256="ab" * 32)
    assert list(file_sets([*files("X-Q8_0.gguf"), draft])) == ["Q8_0"]
    whole = replace(draft, size_bytes=1100)
    assert set(file_sets([*files("X-Q8_0.gguf"), whole])) == {"X-Q8_0", "X-MTP-Q8_0"}


def test_a_repository_of_files_that_are_no_models_says_of_each_why() -> None:
    listed = files(
        "mmproj-F16.gguf", "imatrix_unsloth.gguf", "mtp-Q8_0.gguf", "a\x1b[2Jb.gguf", "x:y.gguf", "README.md"
    )
    with pytest.raises(ModelError, match="none of its GGUF files is a model") as caught:
        choose(listed, parse(NANO))
    for part in ("mmproj-F16.gguf (a projector)", "(calibration data)", "(a draft model)", "(its name has ':')"):
        assert part in caught.value.message
    assert "\x1b" not in caught.value.message


def test_many_files_that_are_no_models_are_counted() -> None:
    with pytest.raises(ModelError, match="and 34 more"):
        choose(files(*(f"mmproj-{i}.gguf" for i in range(40))), parse(NANO))


def test_a_file_that_was_left_out_is_named_with_the_reason_when_asked_for() -> None:
    with pytest.raises(ModelError, match="not taken for a model: a projector"):
        choose(files("X-Q8_0.gguf", "mmproj-F16.gguf"), parse(f"{NANO}:mmproj-F16.gguf"))


@pytest.mark.parametrize(
    "names",
    [
        ("X-Q8_0-000001-of-000002.gguf", "X-Q8_0-000002-of-000002.gguf"),
        ("X-Q8_0-000001-of-000002.gguf",),
        ("X-Q8_0-00001-of-00002.GGUF", "X-Q8_0-00002-of-00002.GGUF"),
    ],
)
def test_shards_that_llama_server_cannot_find_are_refused_whole(names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=r"llama-server finds the other shards only by names like X-Q8_0-00001-of"):
        choose(files(*names), parse(f"{NANO}:Q8_0"))
    with pytest.raises(ModelError, match="llama-server finds the other shards"):
        shard_names(names[0])


def test_a_number_of_shards_that_cannot_be_true_is_refused() -> None:
    with pytest.raises(ModelError, match="it claims to be one of 99999 shards"):
        shard_names("x-00001-of-99999.gguf")


@pytest.mark.parametrize(
    "quant", ["X-Q8_0.gguf", "x-q8_0", "sub/X-Q4_0.gguf", "X-Q4_0.gguf", "BF16/X-BF16-00001-of-00002.gguf", "BF16"]
)
def test_a_file_may_be_named_instead_of_its_quant(quant: str) -> None:
    listed = files("X-Q8_0.gguf", "sub/X-Q4_0.gguf", *shards("BF16/X-BF16", 2))
    chosen = choose(listed, parse(f"{NANO}:{quant}"))
    assert chosen.quant == quant_label(quant.upper())
