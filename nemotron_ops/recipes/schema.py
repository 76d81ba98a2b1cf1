"""What a recipe may say: one frozen dataclass per TOML table. Pure.

A recipe describes one model and how to run it. Tables and keys of the TOML file are the classes and fields here,
by the same names; `load.py` checks a file against them. Everything a recipe leaves out has its default here.
Units are in the names (`_s`, `_bytes`, `_mib`, `_tokens`); flags of llama-server keep llama-server's names with
`_` for `-`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nemotron_ops.policy import Health, Lifecycle, Restart


class LostInThought(StrEnum):
    """What to do when thinking ends and no content follows."""

    REPORT = "report"
    RETRY = "retry"


class Synthetic(StrEnum):
    """Tiny models that are made on the spot instead of fetched."""

    MOE = "moe"
    DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Model:
    """`[model]`: which bytes. One of `repo`, `path`, `synthetic`."""

    repo: str = ""  # Hugging Face repository, "owner/name"
    quant: str = ""  # default quant, as in the file names: "UD-Q4_K_XL"
    revision: str = "main"  # branch, tag or commit; a full commit pins
    path: str = ""  # a GGUF file on this machine instead of a repository
    synthetic: Synthetic | None = None
    alias: str = ""  # public model name; defaults to repo without "-GGUF"
    mmproj: bool = False  # also fetch the multimodal projector
    memory_gb: Mapping[str, float] = field(default_factory=dict)  # what the guide says: {"4-bit": 24}
    sha256: Mapping[str, str] = field(default_factory=dict)  # file name -> hash, for a pinned revision


@dataclass(frozen=True, kw_only=True)
class Context:
    """`[context]`: tokens of context."""

    default_tokens: int = 16384
    max_tokens: int = 1048576


@dataclass(frozen=True, kw_only=True)
class Server:
    """`[server]` and `[profiles.NAME.server]`: flags of llama-server. None leaves llama-server's default."""

    ctx_size: int | None = None  # tokens over all slots; None: context.default_tokens
    parallel: int | None = None  # slots
    kv_unified: bool | None = None
    n_gpu_layers: int | str | None = None  # number, "all" or "auto"
    n_cpu_moe: int | None = None
    flash_attn: str | None = None  # on | off | auto
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    batch_size: int | None = None
    ubatch_size: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    prio: int | None = None  # -1..3
    load_mode: str | None = None  # auto | none | mmap | mlock | mmap+mlock | dio
    ctx_checkpoints: int | None = None
    cache_ram_mib: int | None = None
    split_mode: str | None = None  # none | layer | row
    tensor_split: str | None = None
    main_gpu: int | None = None
    seed: int | None = None
    temp: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    special: bool | None = None
    spec_type: str | None = None
    extra_args: tuple[str, ...] = ()  # further flags, checked against the allow-list
    port: int | None = None  # of the gateway; only where a profile is a whole command line ("guide")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """`[profiles.NAME]`: sampling for one use.

    As `serve --profile NAME` its values become llama-server's defaults, together with its `server` table; as the
    model name `recipe:NAME` they are filled into requests that leave these fields out.
    """

    temp: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    reasoning: bool | None = None  # None: the model's default (on)
    reasoning_budget_tokens: int | None = None
    server: Server = field(default_factory=Server)
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """`[reasoning]`: the tokens around the model's thinking."""

    start_id: int = 12  # <think>
    end_id: int = 13  # </think>


@dataclass(frozen=True, kw_only=True)
class Requests:
    """`[requests]`: what the gateway does with requests for this model."""

    max_tokens: int | None = None  # default where the client names none
    queue_length: int = 256
    queue_wait_s: float = 600.0
    fixed: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    capped: Mapping[str, float | int] = field(default_factory=dict)
    lost_in_thought: LostInThought = LostInThought.REPORT


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe file, checked. `origin` is where it came from (a path, or "shipped")."""

    name: str
    title: str = ""
    arch: str = ""  # general.architecture expected in the GGUF
    default_profile: str = ""
    model: Model
    context: Context = field(default_factory=Context)
    server: Server = field(default_factory=Server)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    reasoning: Reasoning = field(default_factory=Reasoning)
    restart: Restart = field(default_factory=Restart)
    health: Health = field(default_factory=Health)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    requests: Requests = field(default_factory=Requests)
    origin: str = ""
