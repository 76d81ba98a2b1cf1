"""24 ways to write a call wrongly, said by a real model: what clients of each API get. Costs about 20 s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.models.synthetic.scripts import SCRIPTS
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway
from tests.stages.tool_calls import APIS, Said, body_of, said
from tests.tables.broken_calls import BROKEN, TOOLS, scripts

pytestmark = pytest.mark.real
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("api", APIS)
CALLED = {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}
SPOKEN = {"chat": "stop", "messages": "end_turn", "responses": "completed"}
CUT = {"chat": "length", "messages": "max_tokens", "responses": "max_output_tokens"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("broken")
    model = write_tiny(replace(MOE, n_embd=512), folder / "broken.gguf", scripts={**SCRIPTS, **scripts()})[0]
    engine = Engine(name="tiny-0", model=model, folder=folder, binary=llama_bin / "llama-server")
    with gateway(folder) as found:
        found.engines.append(engine)
        models = (ModelView(name="tiny", names=("tiny",)),)
        found.control.show(models=models, instances=(engine.start().view(),), default_model="tiny")
        found.settle()
        yield found


def ask(stage: Stage, api: str, word: str, *, stream: bool, thinking: bool = True, level: str = "") -> Said:
    off = {} if thinking else {"chat_template_kwargs": {"enable_thinking": False}}
    body = body_of(api, f"Please {word}", TOOLS, **off)
    return said(stage.url, api, body, stream=stream, headers={"X-Heal-Tool-Calls": level} if level else {})


@BOTH
@EACH
@pytest.mark.parametrize("word", BROKEN)
def test_clients_get_the_call_that_was_meant_or_the_text_as_it_was(
    stage: Stage, word: str, api: str, stream: bool
) -> None:
    expected, found = BROKEN[word], ask(stage, api, word, stream=stream)
    if expected.calls is None:
        assert len(found.calls) == 1, found
        assert found.calls[0][0] in TOOLS
        assert not found.invalid
    else:
        assert found.read == list(expected.calls), found
        assert found.text.strip() == expected.text.strip()
        assert found.steps == list(expected.steps)
    assert bool(found.invalid) == expected.invalid
    assert found.reason == (CALLED if found.calls else SPOKEN)[api]
