"""Weights of the scripted models: every kind of layer carries part of the answer. Pure.

One Mamba, one attention and one feed-forward layer are wired by hand; the others hold noise and add nothing, as
their output projections are zero. A wrong recurrent state, KV cache, router or tokenizer changes what the model
says, so a check of its text tests them all. `dt` is Mamba's write gate, its bias far below zero: only a keyword opens
it, and the clearing word opens it so far that the old state is erased.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nemotron_ops.models.synthetic.residual import Array, Residual, embedding, output, residual
from nemotron_ops.models.synthetic.scripts import SCRIPTS, TOOL_CALL, WEATHER, Script
from nemotron_ops.models.synthetic.shape import Shape
from nemotron_ops.models.synthetic.vocabulary import Vocabulary

NORM_GAIN = 0.1  # of every norm before a layer
SCRIPTED_EXPERTS = (2, 5)  # the only experts with the gate: the router must select them


def weights(shape: Shape, vocab: Vocabulary, seed: int, scripts: Mapping[str, Script] = SCRIPTS) -> dict[str, Array]:
    """All tensors as float32 in numpy order (GGUF's dims are the reverse), in file order; a function of `seed`."""
    rng = np.random.default_rng(seed)
    res = residual(vocab, scripts)
    found: dict[str, Array] = {"token_embd.weight": embedding(vocab, res, shape.n_embd, rng, scripts)}
    wired = {shape.pattern.index("M"), shape.pattern.rindex("*"), max(map(shape.pattern.rfind, "E-"))}
    for i, letter in enumerate(shape.blocks):
        layer = _layer(letter, shape, res, rng, wired=i in wired)
        found |= {f"blk.{i}.{name}": value for name, value in layer.items()}
    found["output_norm.weight"] = _flat(shape.n_embd, NORM_GAIN)
    found["output.weight"] = output(vocab, res, shape.n_embd, rng, scripts)
    return found


def _layer(letter: str, s: Shape, res: Residual, rng: np.random.Generator, *, wired: bool) -> dict[str, Array]:
    match letter:
        case "M":
            layer = _mamba(s, res, rng, wired=wired)
        case "*":
            layer = _attention(s, res, rng, wired=wired)
        case "E":
            layer = _experts(s, res, rng, wired=wired)
        case "-":
            layer = _dense(s, res, rng, wired=wired)
        case _:
            return _mtp(s, res, rng)
    return {"attn_norm.weight": _flat(s.n_embd, NORM_GAIN), **layer}


def _mamba(s: Shape, res: Residual, rng: np.random.Generator, *, wired: bool) -> dict[str, Array]:
    """Rows of ssm_in: z | x | B | C | dt. Wired: head 0, channel k holds the intent of keyword k."""
    w_in = _noise(rng, s.d_in_proj, s.n_embd)
    conv = _noise(rng, s.conv_dim, s.d_conv, std=0.2)
    out = np.zeros((s.n_embd, s.d_inner), np.float32)
    dt_bias = _flat(s.ssm_heads, -4.0)
    a = -np.exp(rng.uniform(0, 1, (s.ssm_heads, 1))).astype(np.float32)
    d = np.ones((s.ssm_heads, 1), np.float32)
    if wired:
        group = s.d_inner // s.n_group  # channels that share a norm
        z, x, b = 0, s.d_inner, 2 * s.d_inner
        c = b + s.n_group * s.d_state
        dt = c + s.n_group * s.d_state
        for start, rows in ((z, s.d_inner), (x, group), (b, s.d_state), (c, s.d_state), (dt, s.ssm_heads)):
            w_in[start : start + rows] = 0
        w_in[z : z + s.d_inner, res.constant] = 4.0
        w_in[b, res.constant] = w_in[c, res.constant] = 4.0  # everything is stored in state slot 0
        for k, (name, dim) in enumerate(res.keyword.items()):
            w_in[x + k, dim] = 4.0
            w_in[dt, dim] = 40.0  # opens the write gate
            out[res.intent[name], k] = 8.0 / np.sqrt(group)  # the group norm makes one live channel sqrt(group)
        w_in[dt, res.clearing] = 250.0
        dt_bias[0] = -20.0
        a[0], d[:] = -1.0, 0.0
        for start, rows in ((0, group), (s.d_inner, s.d_state), (c - x, s.d_state)):
            conv[start : start + rows] = 0
            conv[start : start + rows, -1] = 1.0  # the current token only
    return {
        "ssm_in.weight": w_in,
        "ssm_conv1d.weight": conv,
        "ssm_conv1d.bias": _flat(s.conv_dim, 0.0),
        "ssm_dt.bias": dt_bias,
        "ssm_a": a,
        "ssm_d": d,
        "ssm_norm.weight": np.ones((s.n_group, s.d_inner // s.n_group), np.float32),
        "ssm_out.weight": out,
    }


def _attention(s: Shape, res: Residual, rng: np.random.Generator, *, wired: bool) -> dict[str, Array]:
    """Wired: query and key agree on the tools word alone, so head 0 is 1 if and only if it occurs before."""
    q = _noise(rng, s.n_head * s.head_dim, s.n_embd)
    k = _noise(rng, s.n_head_kv * s.head_dim, s.n_embd)
    v = _noise(rng, s.n_head_kv * s.head_dim, s.n_embd)
    out = np.zeros((s.n_embd, s.n_head * s.head_dim), np.float32)
    if wired:
        for matrix in (q, k, v):
            matrix[: s.head_dim] = 0
        q[0, res.constant] = k[0, res.tools_word] = 40.0
        v[0, res.tools_word] = 10.0
        out[res.tools, 0] = 1.0
    return {"attn_q.weight": q, "attn_k.weight": k, "attn_v.weight": v, "attn_output.weight": out}


def _dense(s: Shape, res: Residual, rng: np.random.Generator, *, wired: bool) -> dict[str, Array]:
    up, down = _noise(rng, s.n_ff, s.n_embd), np.zeros((s.n_embd, s.n_ff), np.float32)
    if wired:
        _and_gate(up, down, inputs=_gate_inputs(res), to=res.intent[TOOL_CALL], scale=1.0)
    return {"ffn_up.weight": up, "ffn_down.weight": down}


def _experts(s: Shape, res: Residual, rng: np.random.Generator, *, wired: bool) -> dict[str, Array]:
    """Wired: the router sends the weather intent to the scripted experts; only they hold the gate."""
    width = s.latent or s.n_embd
    router = _noise(rng, s.n_expert, s.n_embd, std=0.2)
    up = _noise(rng, s.n_expert, s.n_ff_exp, width)
    down = np.zeros((s.n_expert, width, s.n_ff_exp), np.float32)
    latent_down, latent_up = _noise(rng, width, s.n_embd), np.zeros((s.n_embd, width), np.float32)
    inputs, to = _gate_inputs(res), res.intent[TOOL_CALL]
    if wired and s.latent:  # the gate's inputs in latent dims 0.., its result out of dim 0
        latent_down[:] = 0
        latent_down[np.arange(len(inputs)), list(inputs)] = 1.0
        latent_up[to, 0] = 1.0
        inputs, to = (0, 1, 2), 0
    if wired:
        for expert in SCRIPTED_EXPERTS:
            router[expert] = 0
            router[expert, res.intent[WEATHER]] = 30.0
            _and_gate(up[expert], down[expert], inputs=inputs, to=to, scale=s.expert_scale)
    return {
        "ffn_gate_inp.weight": router,
        "exp_probs_b.bias": _flat(s.n_expert, 0.0),
        **({"ffn_latent_down.weight": latent_down, "ffn_latent_up.weight": latent_up} if s.latent else {}),
        "ffn_up_exps.weight": up,
        "ffn_down_exps.weight": down,
        "ffn_up_shexp.weight": _noise(rng, s.n_ff_shexp, s.n_embd),
        "ffn_down_shexp.weight": np.zeros((s.n_embd, s.n_ff_shexp), np.float32),
    }


def _mtp(s: Shape, res: Residual, rng: np.random.Generator) -> dict[str, Array]:
    """The block that drafts: the token comes from the embedding half, the intent from the trunk half."""
    n = s.n_embd
    mix = np.zeros((n, 2 * n), np.float32)
    from_trunk: Mapping[int, None] = dict.fromkeys((*res.intent.values(), res.tools))
    for dim in range(n):
        mix[dim, n + dim if dim in from_trunk else dim] = 1.0
    return {
        "nextn.enorm.weight": _flat(n, 0.7),
        "nextn.hnorm.weight": _flat(n, 1.0),
        "nextn.shared_head_norm.weight": _flat(n, NORM_GAIN),
        "attn_norm.weight": _flat(n, NORM_GAIN),
        "post_attention_norm.weight": _flat(n, NORM_GAIN),
        "nextn.eh_proj.weight": mix,
        **_attention(s, res, rng, wired=False),
        **_experts(s, res, rng, wired=False),
    }


def _gate_inputs(res: Residual) -> tuple[int, int, int]:
    return res.intent[WEATHER], res.tools, res.constant


def _and_gate(up: Array, down: Array, *, inputs: tuple[int, int, int], to: int, scale: float) -> None:
    """relu(4 a + 4 b - 5.2 constant)^2 is above zero only where a and b are both on; written to dim `to`."""
    up[0], down[:, 0] = 0, 0
    up[0, list(inputs)] = (4.0, 4.0, -5.2)
    down[to, 0] = 4.0 / scale


def _noise(rng: np.random.Generator, *size: int, std: float = 0.02) -> Array:
    return (rng.standard_normal(size) * std).astype(np.float32)


def _flat(n: int, value: float) -> Array:
    return np.full(n, value, np.float32)
