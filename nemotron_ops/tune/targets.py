"""Which modules a LoRA may train, and what that comes to: layers, parameters. Pure.

The router stays frozen. `out_proj` is left out: with the fused CUDA kernel its weight is read past the adapter, which
would learn nothing. What llama.cpp would not apply is refused before anything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_ops.errors import UsageError
from nemotron_ops.tune.network import Module, Network

DEFAULT = ("in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
EXPERTS = ("experts.up_proj", "experts.down_proj")
NOT = {
    "gate": "the router stays frozen",
    "out_proj": "with the fused kernel its adapter would learn nothing",
    "conv1d": "llama.cpp ignores adapters on it",
    "fc1_latent_proj": "llama.cpp ignores adapters on it",
    "fc2_latent_proj": "llama.cpp ignores adapters on it",
    "lm_head": "an adapter on it would keep the whole matrix beside it",
    "embeddings": "an adapter on it would keep the whole matrix beside it",
    "all-linear": "it includes out_proj",
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What will be trained. `shares` are the covered layers of each kind of layer, by its letter."""

    targets: tuple[str, ...]
    rank: int
    modules: tuple[Module, ...]
    shares: dict[str, float]

    @property
    def n_trained(self) -> int:
        """Parameters of the adapter: rank · (in + out) for each module, of each expert."""
        return sum(self.rank * (m.n_in + m.n_out) * m.copies for m in self.modules)

    @property
    def trains_experts(self) -> bool:
        return any(t in EXPERTS for t in self.targets)

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Kinds of layers of which no module is trained."""
        return tuple(letter for letter, share in self.shares.items() if share == 0)


def choose(network: Network, *, rank: int, targets: Sequence[str] = DEFAULT, experts: bool = False) -> Chosen:
    """The modules to train. Raises UsageError for a target that must not be trained, or that matches no module."""
    wanted = tuple(dict.fromkeys((*targets, *(EXPERTS if experts else ()))))
    for target in wanted:
        if target in NOT:
            raise UsageError(f"cannot train {target}: {NOT[target]}", hint=f"the default is {','.join(DEFAULT)}")
    modules = tuple(m for m in network.modules() if m.leaf in wanted)
    found = {m.leaf for m in modules}
    if missing := [t for t in wanted if t not in found and t not in _optional(network, targets)]:
        raise UsageError(f"cannot train {missing[0]}: no layer of this model has such a module")
    covered = {m.layer for m in modules}
    shares = {
        letter: sum(i in covered for i, c in enumerate(network.pattern) if c == letter) / network.pattern.count(letter)
        for letter in dict.fromkeys(network.pattern)
    }
    return Chosen(targets=wanted, rank=rank, modules=modules, shares=shares)


def _optional(network: Network, targets: Sequence[str]) -> tuple[str, ...]:
    """Of the default set, modules of kinds of layers that this model does not have."""
    return DEFAULT if tuple(targets) == DEFAULT else ()
