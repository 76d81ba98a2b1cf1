"""Sizes of a Nemotron-H checkpoint by its config.json: layers, modules, parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.errors import ModelError

LETTER = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "mlp": "-", "moe": "E"}


@dataclass(frozen=True, kw_only=True)
class Module:
    """One linear module of one layer; a routed expert's counts `copies` times."""

    layer: int
    leaf: str
    n_in: int
    n_out: int
    copies: int = 1

    @property
    def n_weights(self) -> int:
        return self.n_in * self.n_out * self.copies


@dataclass(frozen=True, kw_only=True)
class Network:
    """Hyper-parameters, by the names of config.json, shortened."""

    pattern: str
    d_model: int
    n_vocab: int
    n_head: int
    n_head_kv: int
    head_dim: int
    ssm_heads: int
    ssm_head_dim: int
    d_state: int
    n_group: int
    d_conv: int
    chunk: int
    n_ff: int
    n_expert: int = 0
    n_ff_exp: int = 0
    n_ff_shexp: int = 0
    latent: int = 0

    @property
    def d_inner(self) -> int:
        return self.ssm_heads * self.ssm_head_dim

    @property
    def conv_dim(self) -> int:
        return self.d_inner + 2 * self.n_group * self.d_state

    @property
    def in_proj(self) -> int:
        return self.d_inner + self.conv_dim + self.ssm_heads

    @property
    def n_parameters(self) -> int:
        """All weights: modules, embeddings, output matrix, and the small vectors."""
        vectors = self.d_model * (len(self.pattern) + 1)
        vectors += self.pattern.count("M") * (self.conv_dim * (self.d_conv + 1) + 3 * self.ssm_heads + self.d_inner)
        vectors += self.pattern.count("E") * self.n_expert
        return 2 * self.n_vocab * self.d_model + vectors + sum(m.n_weights for m in self.modules())

    def modules(self) -> Iterator[Module]:
        """The linear modules of all layers, by the names that PEFT knows."""
        for i, letter in enumerate(self.pattern):
            for leaf, n_in, n_out, copies in self._of(letter):
                yield Module(layer=i, leaf=leaf, n_in=n_in, n_out=n_out, copies=copies)

    def _of(self, letter: str) -> list[tuple[str, int, int, int]]:
        d, width = self.d_model, self.latent or self.d_model
        heads, heads_kv = self.n_head * self.head_dim, self.n_head_kv * self.head_dim
        match letter:
            case "M":
                return [("in_proj", d, self.in_proj, 1), ("out_proj", self.d_inner, d, 1)]
            case "*":
                return [
                    ("q_proj", d, heads, 1), ("k_proj", d, heads_kv, 1), ("v_proj", d, heads_kv, 1),
                    ("o_proj", heads, d, 1),
                ]  # fmt: skip
            case "E":
                experts = [
                    ("experts.up_proj", width, self.n_ff_exp, self.n_expert),
                    ("experts.down_proj", self.n_ff_exp, width, self.n_expert),
                    ("gate", d, self.n_expert, 1),
                    ("up_proj", d, self.n_ff_shexp, 1),
                    ("down_proj", self.n_ff_shexp, d, 1),
                ]
                latent = [("fc1_latent_proj", d, width, 1), ("fc2_latent_proj", width, d, 1)]
                return [*experts, *(latent if self.latent else [])]
            case _:
                return [("up_proj", d, self.n_ff, 1), ("down_proj", self.n_ff, d, 1)]


def pattern_of(config: Mapping[str, Any]) -> str:
    """The letters of the layers: M Mamba-2, * attention, - dense feed-forward, E mixture of experts."""
    kinds = config.get("layers_block_type") or config.get("layer_types") or ()
    return str(config.get("hybrid_override_pattern") or "".join(LETTER.get(k, "?") for k in kinds))


def network_of(config: Mapping[str, Any]) -> Network:
    """The network of a config.json. Keys of experts count only where the pattern has some. Raises ModelError."""
    pattern = pattern_of(config)
    if not pattern or not set(pattern) <= set("M*-E"):
        raise ModelError(
            f"cannot use the checkpoint: its layers are {pattern or 'not given'!r}, not those of Nemotron-H"
        )
    try:
        experts = {
            "n_expert": config["n_routed_experts"], "n_ff_exp": config["moe_intermediate_size"],
            "n_ff_shexp": config["moe_shared_expert_intermediate_size"], "latent": config.get("moe_latent_size") or 0,
        } if "E" in pattern else {}  # fmt: skip
        return Network(
            pattern=pattern, d_model=config["hidden_size"], n_vocab=config["vocab_size"],
            n_head=config["num_attention_heads"], n_head_kv=config["num_key_value_heads"], head_dim=config["head_dim"],
            ssm_heads=config["mamba_num_heads"], ssm_head_dim=config["mamba_head_dim"],
            d_state=config["ssm_state_size"], n_group=config["n_groups"], d_conv=config.get("conv_kernel", 4),
            chunk=config.get("chunk_size", 128), n_ff=config.get("intermediate_size") or 0, **experts,
        )  # fmt: skip
    except KeyError as exc:
        raise ModelError(f"cannot use the checkpoint: its config.json has no {exc.args[0]}") from exc
