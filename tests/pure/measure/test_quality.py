"""Tasks and grades: every solution is right and other answers are not; scores; outputs of other programs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.errors import EngineError, UsageError
from nemotron_ops.measure.quality import task_sets
from nemotron_ops.measure.quality.evaluate import Evaluated
from nemotron_ops.measure.quality.grading import is_right
from nemotron_ops.measure.quality.item import Answer, Call, Item
from nemotron_ops.measure.quality.lm_harness import harness_argv, read_scores
from nemotron_ops.measure.quality.perplexity import read_divergence, read_perplexity
from nemotron_ops.measure.quality.run import chart, recommendation
from nemotron_ops.measure.quality.scores import Judgement, Score, difference, mcnemar
from nemotron_ops.measure.request import Target

TASKS = tuple(task_sets.TASKS)


def items(task: str, seed: int = 1) -> tuple[Item, ...]:
    return task_sets.items_of(task, 120, seed, words=200)


@pytest.mark.parametrize("task", TASKS)
def test_every_solution_is_right_and_silence_or_an_error_is_not(task: str) -> None:
    for item in items(task):
        assert is_right(item, item.solution), item
        assert not is_right(item, Answer())
        assert not is_right(item, replace(item.solution, error="cut"))


@pytest.mark.parametrize("task", TASKS)
def test_items_follow_from_their_seed_and_differ(task: str) -> None:
    assert items(task) == items(task)
    assert {i.prompt for i in items(task)} != {i.prompt for i in items(task, seed=2)}
    assert len({i.id for i in items(task)}) == 120
    many = task_sets.items_of(task, 500, 1, words=50)
    assert len({i.prompt for i in many}) == 500


@pytest.mark.parametrize("task", TASKS)
def test_the_solution_of_another_item_is_wrong(task: str) -> None:
    found = items(task)
    for item, other in zip(found, found[1:] + found[:1], strict=True):
        if other.expected != item.expected and item.check != "without_letter":  # many answers are right there
            assert not is_right(item, other.solution), (item, other)


def item(check: str, **expected: object) -> Item:
    return Item(id="x", prompt="", check=check, expected=expected, solution=Answer())


@pytest.mark.parametrize(
    ("check", "expected", "content", "right"),
    [
        ("number", {"value": 1234}, "First 5, then **1,234**.", True),
        ("number", {"value": -7}, "That is −7", True),
        ("number", {"value": 7}, "7, since 3 + 4 = 7", True),
        ("number", {"value": 7}, "7, or 8", False),
        ("words", {"words": ["a", "a"]}, "a, a", True),
        ("words", {"words": ["a", "a"]}, "Here: a, a", False),
        ("json", {"value": {"a": True}}, '```json\n{"a": true}\n```', True),
        ("json", {"value": {"a": True}}, 'Sure: {"a": true}', False),
        ("lines", {"count": 2, "start": "* "}, "* one\n\n* two\n", True),
        ("lines", {"count": 2, "start": "* "}, "* one\n*two", False),
        ("last_word", {"least": 3, "word": "fjord"}, 'It is a deep "fjord."', True),
        ("last_word", {"least": 3, "word": "fjord"}, "fjord", False),
        ("without_letter", {"least": 2, "letter": "e"}, "No way", True),
        ("without_letter", {"least": 2, "letter": "e"}, "No, nEver", False),
        ("holds", {"text": "123456", "others": ["654321"]}, "It is 123456.", True),
        ("holds", {"text": "123456", "others": ["654321"]}, "123456 or 654321", False),
    ],
)
def test_a_check_is_strict_about_what_was_asked(
    check: str, expected: dict[str, object], content: str, right: bool
) -> None:
    assert is_right(item(check, **expected), Answer(content=content)) is right


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ('{"city": "oslo ", "n": 2}', True),
        ('{"n": 2, "city": "Oslo"}', True),
        ('{"city": "Oslo", "n": "2"}', False),
        ('{"city": "Oslo", "n": 2, "x": 1}', False),
        ('{"city": "Oslo", "n": true}', False),
        ("[]", False),
        ('{"city": "Oslo"', False),
    ],
)
def test_a_call_is_right_with_these_arguments_and_no_others(arguments: str, right: bool) -> None:
    wanted = item("call", name="f", arguments={"city": "Oslo", "n": 2})
    call = Call(name="f", arguments=arguments)
    assert is_right(wanted, Answer(calls=(call,))) is right
    assert not is_right(wanted, Answer(calls=(call, call)))
    assert not is_right(wanted, Answer(calls=(replace(call, name="g"),)))


def test_a_needle_is_in_its_text_once_and_at_every_depth() -> None:
    places = []
    for one in items("needles"):
        code = str(one.expected["text"])
        assert one.prompt.count(code) == 1
        places.append(one.prompt.index(code) / len(one.prompt))
    assert min(places) < 0.1
    assert max(places) > 0.85


def test_a_task_of_another_name_is_refused_with_the_nearest() -> None:
    assert task_sets.chosen([]) == TASKS
    with pytest.raises(UsageError, match="cannot run the task arithmatic") as caught:
        task_sets.chosen(["arithmatic"])
    assert "arithmetic" in str(caught.value.hint)


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == pytest.approx(0.021484375)  # binomial test of 1 in 10
    assert mcnemar(5, 5) == 1.0


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    draws = random.Random(3)
    held = worse = 0
    for _ in range(1000):
        one = [draws.random() < 0.8 for _ in range(200)]
        other = [draws.random() < 0.8 for _ in range(200)]
        found = difference("t", one, other)
        held += found.low <= 0 <= found.high
        worse += found.judgement is Judgement.WORSE
    assert held / 1000 == pytest.approx(0.95, abs=0.02)
    assert worse / 1000 <= 0.04


def test_few_items_settle_nothing_and_say_how_many_would() -> None:
    found = difference("t", [True] * 20, [True] * 20)
    assert found.judgement is Judgement.OPEN
    assert 50 <= found.needed <= 200
    assert difference("t", [True] * found.needed, [True] * found.needed).judgement is Judgement.NO_WORSE


def model(label: str, right: int, asked: int = 200) -> Evaluated:
    grades = tuple(n < right for n in range(asked))
    return Evaluated(label=label, made_by={}, grades={"arithmetic": grades}, errors={"arithmetic": 0})


def test_a_recommendation_says_what_the_numbers_allow() -> None:
    def said(one: int, other: int, asked: int = 200) -> str:
        models = (model("Q4", one, asked), model("Q8", other, asked))
        found = difference("arithmetic", models[0].grades["arithmetic"], models[1].grades["arithmetic"])
        return recommendation(models, (found,), None)

    assert said(190, 190) == "Q4 is good enough in place of Q8 for these tasks"
    assert said(160, 190).startswith("Q4 is worse than Q8: arithmetic -15.0%")
    assert said(18, 18, asked=20).startswith("not settled between Q4 and Q8")
    assert said(0, 2).startswith("these tasks tell nothing")


def test_the_chart_has_a_bar_with_an_interval_for_each_model() -> None:
    drawn = chart((model("Q4", 100), model("Q8", 150)))
    assert [(b.name, b.value) for b in drawn.panels[0].bars] == [("Q4", 0.5), ("Q8", 0.75)]
    assert (drawn.panels[0].bars[0].low, drawn.panels[0].bars[0].high) == Score(
        task="arithmetic", right=100, asked=200
    ).interval


KL = """
Mean PPL(Q)/PPL(base)         :   1.002345 ±   0.000456
Mean    KLD:   0.001234 ±   0.000056
Maximum KLD:   0.345600
99.9%   KLD:   0.100000
99.0%   KLD:   0.050000
Median  KLD:   0.000700
Same top p: 97.512 ± 0.123 %
"""


def test_the_output_of_llama_perplexity_is_read() -> None:
    found = read_perplexity("[1]4.0,[2]5.0,\nFinal estimate: PPL = 5.1234 +/- 0.05678\n")
    assert (found.value, found.error) == (5.1234, 0.05678)
    kl = read_divergence(KL)
    assert (kl.mean, kl.median, kl.p99, kl.largest) == (0.001234, 0.0007, 0.05, 0.3456)
    assert (kl.ratio, kl.ratio_error) == (1.002345, 0.000456)
    assert kl.same_top == pytest.approx(0.97512)
    with pytest.raises(EngineError, match="printed none"):
        read_perplexity("error: no such file")
    with pytest.raises(EngineError, match="printed none"):
        read_divergence("Mean    KLD:   0.1")


def test_lm_evals_results_are_read_and_its_key_is_not_in_its_command_line() -> None:
    value = json.loads(
        '{"results": {"gsm8k": {"alias": "gsm8k", "sample_len": 5, "exact_match,strict-match": 0.4,'
        ' "exact_match_stderr,strict-match": 0.2, "bypass,none": 1, "bypass_stderr,none": "N/A"}}}'
    )
    one, other = read_scores(value)
    assert (one.task, one.metric, one.value, one.error) == ("gsm8k", "exact_match,strict-match", 0.4, 0.2)
    assert other.error is None
    target = Target(url="http://h/v1", model="m", api_key="secret-key")
    argv = harness_argv(Path("py"), target, ["a", "b"], limit=5, seed=1, out=Path("o"))
    assert "secret-key" not in " ".join(argv)
    assert argv[argv.index("--tasks") + 1] == "a,b"
    assert "base_url=http://h/v1/chat/completions" in argv[argv.index("--model_args") + 1]
