"""Training samples by the chat template: where the loss begins, one sample a turn, refusals. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from nemotron_ops.errors import ModelError
from nemotron_ops.models.synthetic.write import chat_template
from nemotron_ops.tune.render import Rendered, RenderError, Template, rendered
from nemotron_ops.tune.shapes import sample_of

TEMPLATE = Template(chat_template())
ASK = {"role": "user", "content": "What is 2 + 2?"}
THOUGHTFUL = {"role": "assistant", "reasoning_content": "Two plus two.", "content": "4."}
DIRECT = {"role": "assistant", "content": "4."}


def of(*messages: dict[str, Any]) -> list[Rendered]:
    return list(rendered(sample_of({"messages": list(messages)}), TEMPLATE))


def test_a_reasoning_answer_is_learnt_from_after_the_templates_think() -> None:
    (one,) = of(ASK, THOUGHTFUL)
    assert one.prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert (one.completion, one.thinking) == ("Two plus two.\n</think>\n4.<|im_end|>", True)


def test_a_direct_answer_is_learnt_without_the_templates_empty_think_block() -> None:
    (one,) = of(ASK, DIRECT)
    assert one.prompt.endswith("<think></think>")
    assert (one.completion, one.thinking) == ("4.<|im_end|>", False)


def test_each_turn_is_a_sample_in_its_own_mode_with_the_history_as_the_server_renders_it() -> None:
    first, second = of(ASK, THOUGHTFUL, {"role": "user", "content": "And 3?"}, DIRECT)
    assert (first.thinking, second.thinking) == (True, False)
    assert "Two plus two." in first.completion
    assert "Two plus two." not in second.prompt + second.completion
    assert second.asked[-1] == {"role": "user", "content": "And 3?"}


def test_nothing_of_the_prompt_is_learnt() -> None:
    for one in of({"role": "system", "content": "Be brief."}, ASK, THOUGHTFUL):
        assert "What is 2 + 2?" in one.prompt
        assert "2 + 2" not in one.completion


def test_tool_calls_are_refused_by_name() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    with pytest.raises(RenderError, match="tool calls"):
        of(ASK, call)


def test_a_template_that_renders_the_answer_otherwise_is_refused() -> None:
    odd = Template("{% if add_generation_prompt %}<think>{% else %}{{ messages[-1].content }}{% endif %}")
    with pytest.raises(RenderError, match="another mode"):
        list(rendered(sample_of({"messages": [ASK, DIRECT]}), odd))


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
        "{{ range(99999999) | list }}",
    ],
)
def test_a_template_reaches_nothing_outside(text: str) -> None:
    with pytest.raises(RenderError, match="refuses it"):
        Template(text).text([{"role": "user", "content": "hi"}], prompt=True, thinking=False)


def test_a_template_that_is_none_is_an_error() -> None:
    with pytest.raises(ModelError, match="cannot use the model's chat template"):
        Template("{% if %}")
