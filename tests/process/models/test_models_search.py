"""`models search`, and progress for programs, against a hub on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_sparse, write_tiny
from tests.fakes.hub import Hub
from tests.fakes.shapes import NANO_30B
from tests.stages.installation import Installation

pytestmark = pytest.mark.process

NANO = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF"
OTHER = "owner/Nemotron-Mini-GGUF"
EMPTY = "owner/Nemotron-drafts-GGUF"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with Hub() as hub:
        for label, quant in (("Q8_0", "Q8_0"), ("UD-Q4_K_XL", "Q4_K")):
            name = f"Nemotron-3-Nano-30B-A3B-{label}.gguf"
            hub.add(NANO, name, write_sparse(NANO_30B, folder / name, quant=quant)[0], sha256="ab" * 32)
        hub.add(OTHER, "Mini-Q8_0.gguf", write_tiny(MOE, folder / "Mini-Q8_0.gguf")[0])
        hub.add(EMPTY, "mmproj-F16.gguf", b"GGUF")
        hub.add("owner/Llama-GGUF", "Llama-Q8_0.gguf", b"GGUF")
        hub.add("owner/Nemotron-safetensors", "model.safetensors", b"{}")
        hub.downloads = {OTHER: 12, NANO: 345_678, EMPTY: 1}
        hub.gated_repos = {OTHER}
        yield hub


@pytest.fixture
def here(home: Path, hub: Hub) -> Installation:
    home.mkdir()
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_", "HF_", "LLAMA_"))}
    return Installation(home=home, env={**keep, "HOME": str(home), "NEMOTRON_OPS_HOME": str(home), **hub.env})


def test_repositories_with_models_come_by_downloads_with_quants_and_sizes(here: Installation, hub: Hub) -> None:
    found = here.json("models", "search", "nemotron")
    assert [(m["repo"], m["downloads"], m["gated"]) for m in found] == [
        (NANO, 345_678, False), (OTHER, 12, True), (EMPTY, 1, False),
    ]  # fmt: skip
    sizes = {name: entry.size for name, entry in hub.files[NANO].items()}
    assert [(q["quant"], q["size_bytes"]) for q in found[0]["quants"]] == [
        ("UD-Q4_K_XL", sizes["Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf"]),
        ("Q8_0", sizes["Nemotron-3-Nano-30B-A3B-Q8_0.gguf"]),
    ]
    assert found[0]["changed"] == "2026-11-02"
    assert (found[2]["quants"], found[2]["why"]) == ([], "it has no GGUF file that is a model")
    text = here.run("models", "search", "nemotron", "mini").stdout
    assert OTHER in text
    assert "gated" in text
    assert NANO not in text


def test_what_fits_is_read_from_headers_where_it_is_asked_for(here: Installation) -> None:
    (found,) = here.json("models", "search", "nemotron", "mini", "--fit")
    assert found["quants"][0]["fits"].startswith("cpu, up to ")


def asked(hub: Hub) -> list[str]:
    return [s.path for s in hub.seen if s.path.startswith("/api/models")]


def test_no_quants_asks_the_hub_once(here: Installation, hub: Hub) -> None:
    before = len(asked(hub))
    found = here.json("models", "search", "nemotron", "--no-quants", "--limit", "2")
    assert [m["repo"] for m in found] == [NANO, OTHER]
    assert len(asked(hub)) == before + 1


def test_a_search_without_a_hub_or_without_a_hit_says_so(here: Installation, hub: Hub) -> None:
    assert here.json("models", "search", "no such thing") == []
    assert "fewer or shorter words" in here.run("models", "search", "no such thing").stderr
    offline = Installation(home=here.home, env={**here.env, "HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE" in offline.run("models", "search", "nemotron", code=7).stderr
    away = Installation(home=here.home, env={**here.env, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "cannot reach http://127.0.0.1:9" in away.run("models", "search", "nemotron", code=7).stderr


def test_a_token_that_the_hub_refuses_is_left_out_and_told(here: Installation, hub: Hub) -> None:
    hub.refuses_tokens = "Invalid credentials"
    try:
        with_token = Installation(home=here.home, env={**here.env, "HF_TOKEN": "hf_old"})
        done = with_token.run("models", "search", "mini")
    finally:
        hub.refuses_tokens = ""
    assert OTHER in done.stdout
    assert "going on without it" in done.stderr


def test_progress_for_programs_is_json_lines_with_amounts(here: Installation) -> None:
    done = here.run("fetch", f"{OTHER}:Q8_0", "--progress", "json", "--json")
    steps = [json.loads(line) for line in done.stderr.splitlines()]
    amounts = [s for s in steps if "done" in s]
    assert amounts[-1]["done"] == amounts[-1]["total"] == amounts[0]["total"]
    assert {s.get("unit") for s in amounts} == {"B"}
    assert json.loads(done.stdout)["id"] == f"{OTHER}:Q8_0"
