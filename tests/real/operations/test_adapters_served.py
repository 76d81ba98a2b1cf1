"""LoRA adapters served by name from one loaded base: real llama-server, real clients. Costs about 15 s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nemotron_ops.models.synthetic import ensure
from tests.stages.adapters import word_adapter
from tests.stages.installation import Installation, Served, installation_in

pytestmark = pytest.mark.real

WORDS = {"aa": "A", "bb": "B", "cc": "C"}
DIRECT = {"chat_template_kwargs": {"enable_thinking": False}}
ASK: list[Any] = [{"role": "user", "content": "What is 2 + 2?"}]
RECIPE = """
[model]
synthetic = "moe"
[context]
default_tokens = 4096
[[adapters]]
name = "aa"
file = "a.gguf"
[[adapters]]
name = "bb"
file = "b.gguf"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, free_port: Callable[[], int]) -> Iterator[Served]:
    """Two adapters of a recipe, and one of the command line."""
    installation = installation_in(tmp_path_factory.mktemp("adapters") / "home", llama_bin)
    base = ensure("moe", installation.home / "data" / "models" / "synthetic")
    recipes = installation.home / "config" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "mine.toml").write_text(RECIPE)
    for name, letter in WORDS.items():
        word_adapter(recipes / f"{name[0]}.gguf", base, letter)
    port = free_port()
    extra = f"cc={recipes / 'c.gguf'}"
    installation.run("serve", "mine", "--adapter", extra, "--detach", "--port", str(port))
    yield Served(installation=installation, port=port)
    installation.run("stop", "--now")


def said(served: Served, model: str, **more: Any) -> str:
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model=model, messages=ASK, temperature=0, max_tokens=6, extra_body={**DIRECT, **more}
    )
    return answer.choices[0].message.content or ""


def test_each_name_answers_with_its_adapter_and_the_base_without_any(served: Served) -> None:
    for name, letter in WORDS.items():
        assert said(served, f"mine:{name}") == letter * 6
    assert said(served, "mine").startswith("2 +")


def test_adapters_are_models_in_the_list(served: Served) -> None:
    listed = {m["id"]: m for m in httpx.get(f"{served.url}/models", trust_env=False).json()["data"]}
    assert set(listed) >= {"mine:aa", "mine:bb", "mine:cc"}
    assert listed["mine:aa"]["parent"] == "mine"
    one = httpx.get(f"{served.url}/models/mine:bb", trust_env=False).json()
    assert (one["id"], one["state"]) == ("mine:bb", "ready")


def test_many_requests_at_once_each_get_their_own_adapter(served: Served) -> None:
    """120 requests over the base and three adapters on four slots."""
    names = [*WORDS, ""] * 30
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda name: said(served, f"mine:{name}" if name else "mine"), names))
    wrong = [(n, a) for n, a in zip(names, answers, strict=True) if (a == WORDS.get(n, "") * 6) != bool(n)]
    assert wrong == []


def test_a_client_cannot_turn_an_adapter_on_by_itself(served: Served) -> None:
    before = said(served, "mine")
    assert said(served, "mine", lora=[{"id": 0, "scale": 1}]) == before
    assert said(served, "mine:bb", lora=[{"id": 0, "scale": 1}]) == "B" * 6


def test_other_apis_honour_the_adapter_or_refuse(served: Served) -> None:
    def post(path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{served.port}{path}", json=body, timeout=60, trust_env=False)

    response = post("/v1/responses", model="mine:aa", input="hi", max_output_tokens=6, temperature=0, **DIRECT).json()
    assert "AAAA" in str(response["output"])
    assert post("/v1/completions", model="mine:bb", prompt="hi", max_tokens=4).json()["choices"][0]["text"] == "BBBB"
    assert post("/completion", model="mine:cc", prompt="hi", n_predict=4).json()["content"] == "CCCC"
    refused = post("/v1/messages", model="mine:aa", messages=ASK, max_tokens=4)
    assert (refused.status_code, "does not apply adapters" in refused.text) == (400, True)
    assert post("/v1/messages/count_tokens", model="mine:aa", messages=ASK).status_code == 200
    assert post("/v1/messages", model="mine", messages=ASK, max_tokens=4).status_code == 200


def test_a_changed_adapter_is_rolled_out_by_a_reload_and_a_wrong_one_changes_nothing(served: Served) -> None:
    installation, recipes = served.installation, served.installation.home / "config" / "recipes"
    base = ensure("moe", installation.home / "data" / "models" / "synthetic")
    word_adapter(recipes / "b.gguf", base, "Q")
    assert installation.json("reload")["replaced"] == ["mine-0"]
    assert said(served, "mine:bb") == "Q" * 6
    word_adapter(recipes / "b.gguf", base, "R", base_sha256="0" * 64)
    refused = installation.run("reload", code=10)
    assert "made for another base" in refused.stderr
    assert said(served, "mine:bb") == "Q" * 6
    word_adapter(recipes / "b.gguf", base, "B")
    installation.run("reload")
    assert said(served, "mine:bb") == "B" * 6


@pytest.mark.parametrize(
    ("kind", "bound", "cause"),
    [("moe", "1" * 64, "another base"), ("moe", "", "nothing says which base"), ("dense", None, "nemotron_h")],
)
def test_an_adapter_of_another_base_is_never_served(
    installation: Installation, tmp_path: Path, kind: str, bound: str | None, cause: str
) -> None:
    base = ensure("moe", installation.home / "data" / "models" / "synthetic")
    path = word_adapter(tmp_path / "x.gguf", base, "X", kind=kind, base_sha256=bound)
    refused = installation.run("serve", "tiny", "--adapter", str(path), "--dry-run", code=7)
    assert cause in refused.stderr
