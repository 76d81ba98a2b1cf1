"""The commands `fetch`, `models` and `plan`, against a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.cli.app import App
from nemotron_ops.errors import FitError
from nemotron_ops.host.facts import Facts
from nemotron_ops.installation import Installation as Here
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_sparse, write_tiny
from nemotron_ops.operations.memory_budget import decide, look_for_model
from nemotron_ops.recipes.load import load_recipe
from nemotron_ops.recipes.resolve import resolve
from tests.fakes.hub import Hub
from tests.fakes.shapes import NANO_30B
from tests.stages.installation import Installation

pytestmark = pytest.mark.process

REPO, MODEL = "owner/Tiny-GGUF", "owner/Tiny-GGUF:Q8_0"
NANO = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with Hub() as hub:
        hub.add(REPO, "Tiny-Q8_0.gguf", write_tiny(MOE, folder / "Tiny-Q8_0.gguf")[0])
        for part in write_tiny(MOE, folder / "Tiny-Q4_0.gguf", quant="Q4_0", shards=2):
            hub.add(REPO, part.name, part)
        for label, quant in (("UD-Q4_K_XL", "Q4_K"), ("Q8_0", "Q8_0"), ("BF16", "BF16")):
            name = f"Nemotron-3-Nano-30B-A3B-{label}.gguf"
            hub.add(NANO, name, write_sparse(NANO_30B, folder / name, quant=quant)[0], sha256="ab" * 32)
        yield hub


def installation_of(home: Path, env: dict[str, str]) -> Installation:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NEMOTRON_OPS", "XDG_", "HF_", "LLAMA_"))}
    return Installation(home=home, env={**keep, "HOME": str(home), "NEMOTRON_OPS_HOME": str(home), **env})


@pytest.fixture
def here(home: Path, hub: Hub) -> Installation:
    home.mkdir()
    return installation_of(home, hub.env)


def test_a_model_lives_from_fetch_to_rm(here: Installation) -> None:
    dry = here.json("fetch", MODEL, "--dry-run")
    assert (dry["here"], dry["fetch_bytes"], dry["files"][0]["here"]) == (False, dry["size_bytes"], "no")
    assert here.json("models", "list") == []
    path = here.run("fetch", MODEL).stdout.strip()
    assert path.endswith("Tiny-Q8_0.gguf")
    again = here.run("fetch", MODEL)
    assert "is here and unchanged" in again.stderr
    listed = here.json("models", "list")
    assert [(m["id"], m["path"]) for m in listed] == [(MODEL, path)]
    assert here.json("models", "show", REPO)["arch"] == "nemotron_h_moe"
    assert here.json("models", "verify") == {MODEL: []}
    assert here.json("models", "rm", MODEL, "--dry-run")["files"] == [path]
    assert Path(path).exists()
    assert here.json("models", "rm", MODEL)["models"] == [MODEL]
    assert not Path(path).exists()
    assert "is not on this machine" in here.run("models", "rm", MODEL, code=7).stderr


def test_a_changed_byte_is_found_by_verify_and_a_changed_time_by_quick(here: Installation) -> None:
    path = Path(here.run("fetch", MODEL).stdout.strip())
    stat = path.stat()
    with path.open("r+b") as f:
        f.seek(1_000_000)
        f.write(b"bit rot")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert here.json("models", "verify", "--quick")[MODEL] == []
    damaged = here.run("models", "verify", MODEL, code=7)
    assert "not the bytes that were fetched" in damaged.stderr
    assert "nemotron-ops fetch owner/Tiny-GGUF:Q8_0" in damaged.stderr
    os.utime(path)
    assert "changed since it was verified" in here.run("models", "verify", "--quick", code=7).stdout
    here.run("fetch", MODEL)
    assert here.json("models", "verify") == {MODEL: []}


def test_a_model_travels_to_a_machine_without_network(here: Installation, tmp_path: Path) -> None:
    here.run("fetch", f"{REPO}:Q4_0")
    here.run("models", "export", f"{REPO}:Q4_0", str(tmp_path / "stick"))
    away = installation_of(tmp_path / "away", {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert away.run("models", "import", str(tmp_path / "stick")).stdout.strip() == f"{REPO}:Q4_0"
    assert away.json("models", "verify") == {f"{REPO}:Q4_0": []}
    assert "is here and unchanged" in away.run("fetch", f"{REPO}:Q4_0").stderr
    assert away.json("models", "show", f"{REPO}:Q4_0")["commit"] == here.json("models", "show", REPO)["commit"]


def test_a_damaged_export_is_not_imported(here: Installation, tmp_path: Path) -> None:
    here.run("fetch", MODEL)
    here.run("models", "export", MODEL, str(tmp_path / "stick"))
    copy = tmp_path / "stick" / "Tiny-Q8_0.gguf"
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.unlink()  # it may share its bytes with the store
    copy.write_bytes(data)
    here.run("models", "rm", MODEL)
    assert "the manifest says" in here.run("models", "import", str(tmp_path / "stick"), code=7).stderr
    assert here.json("models", "list") == []


def test_a_bare_file_is_imported_under_a_name(here: Installation, tmp_path: Path) -> None:
    file = write_tiny(MOE, tmp_path / "Mine-Q4_0.gguf", quant="Q4_0")[0]
    assert here.run("models", "import", str(file)).stdout.strip() == "local/Mine-Q4_0:Q4_0"
    assert here.run("models", "import", str(file), "--as", "me/mine:Q4_0").stdout.strip() == "me/mine:Q4_0"
    (tmp_path / "page.gguf").write_bytes(b"<html>the hotel wants you to log in</html>")
    assert "web page" in here.run("models", "import", str(tmp_path / "page.gguf"), code=7).stderr


def test_gc_removes_what_is_old_and_never_what_is_in_use(here: Installation) -> None:
    path = here.run("fetch", MODEL).stdout.strip()
    here.run("fetch", f"{REPO}:Q4_0")
    left_over = Path(path).parent / "old-Q8_0.gguf"
    left_over.write_bytes(b"of an update")
    os.utime(left_over, (time.time() - 90_000,) * 2)
    with subprocess.Popen([sys.executable, "-c", "input()", path], stdin=subprocess.PIPE) as user:
        try:
            planned = here.json("models", "gc", "--keep", "0", "--dry-run")
            assert planned["models"] == [f"{REPO}:Q4_0"]
            assert left_over.exists()
            assert "it is in use" in here.run("models", "rm", MODEL, code=7).stderr
            removed = here.json("models", "gc", "--keep", "0")
        finally:
            user.kill()
    assert removed["models"] == [f"{REPO}:Q4_0"]
    assert str(left_over) in removed["files"]
    assert not left_over.exists()
    assert [m["id"] for m in here.json("models", "list")] == [MODEL]
    assert "expected a time like" in here.run("models", "gc", "--older-than", "soon", code=2).stderr


def test_a_proxy_of_the_environment_is_not_asked_for_a_hub_of_our_own(here: Installation) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:9")
    behind = Installation(home=here.home, env=here.env | proxies)
    assert behind.run("fetch", MODEL).stdout.strip().endswith("Tiny-Q8_0.gguf")


def test_recipes_without_a_repository_are_made_or_found(here: Installation) -> None:
    made = here.json("fetch", "tiny")
    assert Path(made["path"]).is_file()
    assert "its model is not fetched from a hub" in here.run("models", "show", "tiny", code=7).stderr


def test_errors_name_the_cause_and_the_way_out(here: Installation) -> None:
    wrong = here.run("fetch", f"{REPO}:Q9_9", code=7)
    assert "cannot find Q9_9 in owner/Tiny-GGUF" in wrong.stderr
    assert "there are Q4_0, Q8_0" in wrong.stderr
    assert "it does not exist, or is private" in here.run("fetch", "owner/Nothing", code=7).stderr


def plan(here: Installation, *words: str) -> Any:
    return here.json("plan", *words)


def test_a_plan_needs_headers_only(here: Installation, hub: Hub) -> None:
    before = hub.sent_bytes
    found = plan(here, "30b", "--gpu", "24", "--ram", "64")
    assert hub.sent_bytes - before < 12 << 20, "of 118 GB of models"
    assert found["recommended"] == {"quant": "UD-Q4_K_XL", "ctx_size": 262144}
    quants = {q["quant"]: q for q in found["quants"]}
    assert list(quants) == ["UD-Q4_K_XL", "Q8_0", "BF16"]
    cells = {c["ctx_size"]: c for c in quants["UD-Q4_K_XL"]["contexts"]}
    assert cells[262144]["placement"]["mode"] == "all on GPU"
    assert cells[1048576]["placement"]["mode"] == "experts on CPU"
    assert here.json("models", "list") == []


def test_a_plan_for_people_has_a_table_bars_and_reasons(here: Installation) -> None:
    shown = here.run("plan", "30b", "--gpu", "none", "--ram", "24").stdout
    star = next(line for line in shown.splitlines() if line.startswith("*  "))
    assert star.split()[1] == "UD-Q4_K_XL"
    assert "█" in shown
    assert "BF16 with 16,384 tokens: host needs" in shown


@pytest.mark.parametrize(
    ("ram_gib", "asked", "quant"),
    [
        (64, (), "UD-Q4_K_XL"),  # the recipe's own
        (22, (), "UD-Q4_K_XL"),  # with less context
        (22, ("ctx_size",), "Q2_K"),  # no less context: the best that fits
        (8, (), ""),  # nothing fits
    ],
)
def test_serve_takes_the_best_quant_that_fits(
    here: Installation, hub: Hub, tmp_path: Path, ram_gib: int, asked: tuple[str, ...], quant: str
) -> None:
    hub.add(NANO, "N-Q2_K.gguf", write_sparse(NANO_30B, tmp_path / "N-Q2_K.gguf", quant="Q4_0")[0], sha256="ab" * 32)
    bytes_ = ram_gib << 30
    facts = Facts(system="Linux", machine="x86_64", ram_bytes=bytes_, ram_available_bytes=bytes_)
    try:
        layout = App(env=here.env).layout
        recipe = load_recipe("30b", layout)
        by_hand = dict.fromkeys(asked, recipe.context.default_tokens)
        target = Here(layout=layout, env=here.env, known=facts)
        found = look_for_model(resolve(recipe, flags=by_hand), target, quant_is_open=True)
        if quant:
            assert decide([found], target, backend="")[0].quant == quant
        else:
            with pytest.raises(FitError):
                decide([found], target, backend="")
    finally:
        del hub.files[NANO]["N-Q2_K.gguf"]


def test_a_plan_where_nothing_fits_ends_with_8(here: Installation) -> None:
    nothing = here.run("plan", "30b", "--gpu", "none", "--ram", "8", code=8)
    assert "cannot fit 30b on this machine" in nothing.stderr


def test_a_plan_uses_what_is_here_when_the_hub_is_away(here: Installation) -> None:
    here.run("fetch", MODEL)
    away = installation_of(here.home, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"})
    done = away.run("plan", REPO, "--json")
    assert [q["quant"] for q in json.loads(done.stdout)["quants"]] == ["Q8_0"]
    assert "planning with what is here" in done.stderr


def test_a_plan_can_be_held_against_a_log(here: Installation, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "load_tensors:   CPU_Mapped model buffer size =     2.18 MiB\n"
        "llama_kv_cache:        CPU KV buffer size =     8.00 MiB\n"
    )
    found = {c["kind"]: c for c in here.json("plan", "tiny", "--ctx-size", "16384", "--compare-log", str(log))}
    assert found["KV"]["predicted_mib"] == found["KV"]["logged_mib"] == 8.0
    assert found["model"]["predicted_mib"] == pytest.approx(2.18, abs=0.01)
    log.write_text("nothing here\n")
    assert "it names no buffers" in here.run("plan", "tiny", "--compare-log", str(log), code=2).stderr
