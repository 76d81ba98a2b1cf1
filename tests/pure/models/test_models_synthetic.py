"""The tiny models: same bytes for the same seed, and unambiguous scripts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from nemotron_ops.errors import UsageError
from nemotron_ops.models.synthetic import ANSWERS, ensure
from nemotron_ops.models.synthetic.network import weights
from nemotron_ops.models.synthetic.residual import Array, residual
from nemotron_ops.models.synthetic.scripts import (
    END,
    END_THINK,
    SCRIPTS,
    TOOL_CALL,
    WEATHER,
    script_vocabulary,
    transitions,
)
from nemotron_ops.models.synthetic.shape import SHAPES, tensors

MARGIN = 12.0  # logits between the first and the second token: temperature 1 then gives the same text as greedy


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["moe", "dense", "super"])
@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_0"])
def test_equal_seeds_give_equal_bytes_and_small_files(tmp_path: Path, kind: str, quant: str) -> None:
    one, two = ensure(kind, tmp_path / "a", quant=quant), ensure(kind, tmp_path / "b", quant=quant)
    assert sha256(one) == sha256(two)
    assert one.stat().st_size < 5_000_000


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    assert sha256(ensure("moe", tmp_path, seed=3)) != sha256(ensure("moe", tmp_path, seed=4))


def test_a_model_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = ensure("moe", tmp_path)
    before = path.stat()
    assert ensure("moe", tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_unknown_kinds_and_quants_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are moe, dense, super"):
        ensure("huge", tmp_path)
    with pytest.raises(UsageError, match="there are F32"):
        ensure("moe", tmp_path, quant="Q4_K_M")


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_the_network_has_exactly_the_tensors_of_its_shape(kind: str) -> None:
    vocab = script_vocabulary()
    made = weights(SHAPES[kind], vocab, seed=3)
    assert [(name, array.shape) for name, array in made.items()] == list(tensors(SHAPES[kind], len(vocab)))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_within_a_script_every_token_has_one_successor(name: str) -> None:
    following: dict[str, str] = {}
    for token, after in transitions(SCRIPTS[name]):
        assert following.setdefault(token, after) == after


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_step_of_every_script_wins_by_a_wide_margin(name: str) -> None:
    vocab = script_vocabulary()
    net = weights(SHAPES["moe"], vocab, seed=3)
    for token, after in transitions(SCRIPTS[name]):
        logits = next_logits(net, name, vocab.id(token))
        first, second = np.argsort(-logits)[:2]
        assert first == vocab.id(after), f"{name}: {token!r} leads to {vocab.tokens[first]!r}"
        assert logits[first] - logits[second] > MARGIN


def next_logits(net: dict[str, Array], script: str, token: int) -> Array:
    """Logits after `token` with the intent of `script`, computed from the residual stream after the wired layers."""
    res = residual(script_vocabulary())
    x = net["token_embd.weight"][token].copy()
    if script in res.intent:
        x[res.intent[script]] = 16.0 if script == TOOL_CALL else 8.0
    if script == TOOL_CALL:
        x[res.intent[WEATHER]] = x[res.tools] = 8.0
    normed = x / np.sqrt((x**2).mean() + 1e-5) * net["output_norm.weight"]
    return np.asarray(net["output.weight"] @ normed)


def test_the_known_answers_are_what_the_scripts_spell() -> None:
    spelt = {
        ("".join(t for t in s.think if t != END_THINK), "".join(t for t in s.answer if t != END))
        for s in SCRIPTS.values()
    }
    assert set(ANSWERS.values()) <= spelt


def test_the_special_tokens_have_nemotrons_ids() -> None:
    vocab = script_vocabulary()
    assert [vocab.id(t) for t in ("<|im_start|>", "<|im_end|>", "<think>", "</think>")] == [10, 11, 12, 13]
