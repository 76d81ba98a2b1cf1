"""What people paste for a model: names, pages, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.errors import NemotronOpsError, RecipeError, UsageError
from nemotron_ops.hub_names import HUB, HubName, names_quant, read_hub_name
from nemotron_ops.models.ref import parse
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for

REPO, FILE = "acme/Nemo-3-GGUF", "Nemo-3-Q8_0"
MIRROR = "https://hub.example.org:8443/below"


def name(quant: str = "", revision: str = "") -> HubName:
    return HubName(repo=REPO, quant=quant, revision=revision)


PASTED = [
    (REPO, name()),
    (f"{REPO}:Q8_0", name("Q8_0")),
    (f"{REPO}:{FILE}.gguf", name(FILE)),
    (f"{REPO}:{FILE}.GGUF", name(FILE)),
    (f"{REPO}/{FILE}.gguf", name(FILE)),
    (f"{REPO}/Q8_0/{FILE}-00001-of-00002.gguf", name(f"Q8_0/{FILE}-00001-of-00002")),
    (f"hf.co/{REPO}", name()),
    (f"hf.co/{REPO}:Q8_0", name("Q8_0")),
    (f"hf.co/{REPO}:latest", name()),
    (f"huggingface.co/{REPO}/tree/main", name(revision="main")),
    (f"hf://{REPO}", name()),
    (f"hf://{REPO}:Q8_0", name("Q8_0")),
    (f"hf://models/{REPO}@v1/{FILE}.gguf", name(FILE, "v1")),
    (f"{HUB}/{REPO}", name()),
    (f"{HUB}/{REPO}/", name()),
    (f" <{HUB}/{REPO}> ", name()),
    (f"{HUB}/{REPO}:Q8_0", name("Q8_0")),
    (f"{HUB}/{REPO}?show_file_info={FILE}.gguf", name(FILE)),
    (f"{HUB}/{REPO}?library=llama-cpp-python#how", name()),
    (f"{HUB}/{REPO}/tree/main", name(revision="main")),
    (f"{HUB}/{REPO}/tree/main/UD-Q4_K_XL", name("UD-Q4_K_XL", "main")),
    (f"{HUB}/{REPO}/tree/refs%2Fpr%2F3", name(revision="refs/pr/3")),
    (f"{HUB}/{REPO}/blob/main/{FILE}.gguf", name(FILE, "main")),
    (f"{HUB}/{REPO}/blob/main/a%20b/{FILE}.gguf", name(f"a b/{FILE}", "main")),
    (f"{HUB}/{REPO}/resolve/0123abc/{FILE}.gguf?download=true", name(FILE, "0123abc")),
    (f"{HUB}/{REPO}/discussions/4", name()),
    (f"{HUB}/api/models/{REPO}/tree/main", name(revision="main")),
    (f"{MIRROR}/{REPO}/blob/main/{FILE}.gguf", name(FILE, "main")),
]


@pytest.mark.parametrize(("text", "expected"), PASTED)
def test_what_people_paste_is_understood(text: str, expected: HubName) -> None:
    assert read_hub_name(text, {"HF_ENDPOINT": MIRROR}) == expected
    assert parse(text, {"HF_ENDPOINT": MIRROR}).repo == REPO


@pytest.mark.parametrize(("text", "expected"), PASTED)
def test_every_command_takes_what_people_paste(text: str, expected: HubName, layout: Layout) -> None:
    model = recipe_for(text, layout, {"HF_ENDPOINT": MIRROR}).model
    assert (model.repo, model.quant, model.revision) == (REPO, expected.quant, expected.revision or "main")
    assert names_quant(text) == bool(expected.quant)


@pytest.mark.parametrize(
    "text", ["30b", "tiny:Q8_0", "x.gguf", "./a/b/x.gguf", "../a/b/x.gguf", "/a/b/x.gguf", "a/x.gguf", ""]
)
def test_recipes_and_paths_are_no_names_of_a_hub(text: str, layout: Layout) -> None:
    assert read_hub_name(text, {}) is None
    if text.endswith(".gguf"):
        with pytest.raises(RecipeError, match="there is no such file"):
            recipe_for(text, layout)


def test_a_path_that_starts_in_a_folder_of_this_machine_is_no_repository(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "nano").mkdir(parents=True)
    (tmp_path / "models" / "nano" / "X.GGUF").write_bytes(b"GGUF")
    assert recipe_for("models/nano/X.GGUF", layout).model.path == str(tmp_path / "models/nano/X.GGUF")
    with pytest.raises(RecipeError, match="there is no such file"):
        recipe_for("models/nano/Y.gguf", layout)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://models.example.com/acme/Nemo", "models.example.com is not the hub in use"),
        ("https://us:hf_secret@models.example.com/acme/Nemo", "models.example.com is not the hub in use"),
        (f"{HUB}/acme", "it is not the page of a model"),
        (f"{HUB}/datasets/acme/words", "it is not the page of a model"),
        (f"{HUB}/spaces/acme/chat", "it is not the page of a model"),
        ("hf://acme", "it names no repository"),
        ("https://[::1/acme/Nemo", "cannot read"),
    ],
)
def test_an_address_of_something_else_says_what_is_wrong_with_it(text: str, why: str, layout: Layout) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        recipe_for(text, layout)
    assert "hf_secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "text", ["https://", "hf://", "http://x:y:z/a/b", "//a/b", "a//b", "https://\x00/a/b", ":", "@/:"]
)
def test_nonsense_is_an_error_without_a_traceback(text: str, layout: Layout) -> None:
    with pytest.raises(NemotronOpsError):
        recipe_for(text, layout)
