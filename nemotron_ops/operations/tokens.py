"""Training samples as token ids, by the engine that will serve them: its template, its tokenizer, its BOS. Processes.

Each sample is rendered here with the GGUF's template and compared with the engine's `/apply-template`; its tokens come
from the engine's `/tokenize`. So what is trained is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.engine.client import Client
from nemotron_ops.engine.once import started
from nemotron_ops.errors import ModelError
from nemotron_ops.progress import Report, Step, silent
from nemotron_ops.tune.render import Rendered, RenderError, Template, rendered
from nemotron_ops.tune.shapes import Sample

COMPARED = 16  # samples of each mode whose prompt is compared with the engine's
REPORT_SAMPLES = 100
SETTINGS = {"ctx_size": 4096, "parallel": 1, "cache_ram_mib": 0, "threads": 2}


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One sample: its tokens, how many of them are its prompt, and the text."""

    ids: tuple[int, ...]
    asked: int
    text: Rendered

    @property
    def value(self) -> dict[str, Any]:
        """What the trainer reads."""
        return {"ids": list(self.ids), "asked": self.asked}


def tokenized(samples: Sequence[Sample], model: Path, binary: Path, log: Path, report: Report = silent) -> list[Tokens]:
    """The samples, one for each turn of the assistant. Raises ModelError, which names the sample by its number."""
    with started(binary=binary, model=model, workdir=log, settings=SETTINGS) as engine:
        return tokens_by(engine, samples, report)


def tokens_by(engine: Client, samples: Sequence[Sample], report: Report = silent) -> list[Tokens]:
    """As `tokenized`, by an engine that runs."""
    props = engine.props()
    template = Template(
        str(props["chat_template"]), bos=str(props.get("bos_token", "")), eos=str(props.get("eos_token", ""))
    )
    found: list[Tokens] = []
    compared = {True: 0, False: 0}
    for number, sample in enumerate(samples, 1):
        try:
            texts = list(rendered(sample, template))
        except RenderError as exc:
            raise ModelError(f"cannot use sample {number}: {exc}") from exc
        for text in texts:
            if compared[text.thinking] < COMPARED:
                _compare(engine, text, number)
                compared[text.thinking] += 1
            prompt = _tokenize(engine, text.prompt, special=True)
            answer = _tokenize(engine, text.completion, special=False)
            found.append(Tokens(ids=(*prompt, *answer), asked=len(prompt), text=text))
        if number % REPORT_SAMPLES == 0:
            report(Step(what="tokenize", done=number, total=len(samples), unit="samples"))
    return found


def _compare(engine: Client, text: Rendered, number: int) -> None:
    kwargs = {"enable_thinking": text.thinking}
    answer = engine.ask("/apply-template", {"messages": list(text.asked), "chat_template_kwargs": kwargs})
    if answer["prompt"] != text.prompt:
        raise ModelError(
            f"cannot use sample {number}: the engine renders its prompt in another way",
            hint=f"here {text.prompt[-60:]!r}, the engine {str(answer['prompt'])[-60:]!r}",
        )


def _tokenize(engine: Client, text: str, *, special: bool) -> list[int]:
    """Tokens of a text; `special` puts the model's BOS before it, where its file says so."""
    body = {"content": text, "add_special": special, "parse_special": True}
    return list(engine.ask("/tokenize", body)["tokens"])
