"""The files that every shipped recipe fetches, from recorded listings of the repositories."""

from __future__ import annotations

import pytest

from nemotron_ops.models.ref import Ref, RemoteFile, choose
from nemotron_ops.paths import user_layout
from nemotron_ops.recipes.load import load_recipe, recipe_files

LAYOUT = user_layout({"NEMOTRON_OPS_HOME": "/nowhere"}, uid=0)
NANO_4B, NANO_30B = "NVIDIA-Nemotron-3-Nano-4B", "Nemotron-3-Nano-30B-A3B"
SUPER = "NVIDIA-Nemotron-3-Super-120B-A12B"


def shards(folder: str, stem: str, count: int) -> list[str]:
    return [f"{folder}/{stem}-{folder}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


LISTINGS = {
    f"unsloth/{NANO_4B}-GGUF": [
        "README.md", "config.json", "imatrix_unsloth.gguf_file",
        *(f"{NANO_4B}-{q}.gguf" for q in ("BF16", "Q4_K_M", "Q8_0", "UD-Q4_K_XL", "UD-Q8_K_XL")),
    ],
    f"unsloth/{NANO_30B}-GGUF": [
        "README.md", *shards("BF16", NANO_30B, 2), *(f"{NANO_30B}-{q}.gguf" for q in ("Q4_K_M", "Q8_0", "UD-Q4_K_XL")),
    ],
    f"unsloth/{SUPER}-GGUF": [
        "README.md", *shards("BF16", SUPER, 5), *shards("UD-Q4_K_M", SUPER, 3), *shards("UD-Q4_K_XL", SUPER, 3),
    ],
}  # fmt: skip
FETCHED = {
    "4b": [f"{NANO_4B}-Q8_0.gguf"],
    "30b": [f"{NANO_30B}-UD-Q4_K_XL.gguf"],
    "120b": shards("UD-Q4_K_XL", SUPER, 3),
}


@pytest.mark.parametrize("name", sorted(FETCHED))
def test_a_recipe_fetches_exactly_its_files(name: str) -> None:
    model = load_recipe(name, LAYOUT).model
    listed = [RemoteFile(name=n, size_bytes=1, sha256="ab" * 32) for n in LISTINGS[model.repo]]
    assert [f.name for f in choose(listed, Ref(repo=model.repo, quant=model.quant)).all_files] == FETCHED[name]


def test_every_shipped_recipe_with_a_repository_is_here() -> None:
    with_repo = [n for n in recipe_files(LAYOUT) if load_recipe(n, LAYOUT).model.repo]
    assert sorted(with_repo) == sorted(FETCHED)
