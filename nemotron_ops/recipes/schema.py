"""The tables and keys of a recipe: one frozen dataclass per TOML table. Pure.

A recipe describes one model and how to run it. Tables and keys of the TOML file are the classes and fields here,
by the same names; `load.py` checks a file against them. Defaults of missing keys are here too.
Units are in the names (`_s`, `_bytes`, `_mib`, `_tokens`); flags of llama-server keep llama-server's names with
`_` for `-`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nemotron_ops.policy import Health, Lifecycle, Restart


class LostInThought(StrEnum):
    """What to do with an answer that ends after reasoning, without content."""

    REPORT = "report"
    RETRY = "retry"


class HealToolCalls(StrEnum):
    """How far tool calls that a model wrote wrongly are healed."""

    OFF = "off"
    SAFE = "safe"
    FULL = "full"


class Synthetic(StrEnum):
    """Tiny models that are generated instead of fetched."""

    MOE = "moe"
    DENSE = "dense"
    TRAINABLE = "trainable"


@dataclass(frozen=True, kw_only=True)
class Model:
    """`[model]`: the model's files, by one of `repo`, `path`, `synthetic`."""

    repo: str = ""  # Hugging Face repository, "owner/name"
    quant: str = ""  # default quant, as in the file names: "UD-Q4_K_XL"
    revision: str = "main"  # branch, tag or commit; a full commit pins
    path: str = ""  # a GGUF file on this machine instead of a repository
    synthetic: Synthetic | None = None  # a tiny generated model
    alias: str = ""  # public model name; defaults to repo without "-GGUF"
    aliases: tuple[str, ...] = ()  # further public names; * and ? stand for any letters: "claude-*"
    mmproj: bool = False  # also fetch the multimodal projector
    chat_template_file: str = ""  # a .jinja file beside the recipe, used instead of the model's own template
    memory_gb: Mapping[str, float] = field(default_factory=dict)  # memory by quant, from the guide: {"4-bit": 24}
    sha256: Mapping[str, str] = field(default_factory=dict)  # file name -> hash, for a pinned revision


@dataclass(frozen=True, kw_only=True)
class Context:
    """`[context]`: context in tokens."""

    default_tokens: int = 16384  # context where none is requested
    max_tokens: int = 1048576  # largest context that may be requested


@dataclass(frozen=True, kw_only=True)
class Server:
    """`[server]` and `[profiles.NAME.server]`: flags of llama-server. None leaves llama-server's default."""

    ctx_size: int | None = None  # tokens over all slots; None: context.default_tokens
    parallel: int | None = None  # slots: concurrent requests
    kv_unified: bool | None = None  # slots share one context instead of splitting it
    n_gpu_layers: int | str | None = None  # number, "all" or "auto"
    n_cpu_moe: int | None = None  # layers whose experts stay in host memory
    flash_attn: str | None = None  # on | off | auto
    cache_type_k: str | None = None  # f16, q8_0, q4_0 ...
    cache_type_v: str | None = None  # f16, q8_0, q4_0 ...
    batch_size: int | None = None  # tokens per logical batch
    ubatch_size: int | None = None  # tokens per physical batch
    threads: int | None = None  # CPU threads while generating
    threads_batch: int | None = None  # CPU threads while reading prompts
    prio: int | None = None  # scheduling priority, -1 to 3
    load_mode: str | None = None  # auto | none | mmap | mlock | mmap+mlock | dio
    ctx_checkpoints: int | None = None  # saved states per slot, in host memory
    cache_ram_mib: int | None = None  # prompt cache in host memory
    split_mode: str | None = None  # none | layer | row
    tensor_split: str | None = None  # shares per GPU, "3,1"
    main_gpu: int | None = None  # GPU of unsplit tensors
    seed: int | None = None  # of sampling; -1 is random
    temp: float | None = None  # temperature of requests without one
    top_p: float | None = None  # nucleus sampling of requests without one
    top_k: int | None = None  # k likeliest tokens of requests without one
    min_p: float | None = None  # least share of the likeliest token, of requests without one
    special: bool | None = None  # print special tokens; the end token then shows in answers
    spec_type: str | None = None  # speculative decoding: draft-mtp, ngram-mod ...
    extra_args: tuple[str, ...] = ()  # further flags, checked against the allow-list
    port: int | None = None  # of the gateway; only in a profile that stands for a whole command line ("guide")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """`[profiles.NAME]`: sampling for one use.

    With `serve --profile NAME`, its values and its `server` table become llama-server's defaults; with the model name
    `recipe:NAME`, they become the defaults of request fields.
    """

    temp: float | None = None  # temperature
    top_p: float | None = None  # nucleus sampling
    top_k: int | None = None  # the k likeliest tokens
    min_p: float | None = None  # least share of the likeliest token
    max_tokens: int | None = None  # most tokens of an answer
    reasoning: bool | None = None  # reasoning on or off; unset: the model's default (on)
    reasoning_budget_tokens: int | None = None  # most tokens of reasoning
    server: Server = field(default_factory=Server)
    about: str = ""  # purpose of the profile


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """`[[adapters]]`: a LoRA adapter on this model, which clients choose with the model name `recipe:NAME`."""

    name: str  # public after a colon: letters a-z, digits, _ and -
    file: str = ""  # a GGUF adapter, beside the recipe or by its whole path; empty: the published adapter of that name
    base_sha256: tuple[str, ...] = ()  # hashes of GGUF files that it was made for; empty: as the adapter's file says
    scale: float = 1.0  # how strongly it is applied


@dataclass(frozen=True, kw_only=True)
class Tune:
    """`[tune]`: how `tune` trains a LoRA on this model, where the command line does not say."""

    checkpoint: str = ""  # folder of the 16-bit checkpoint that the GGUF was made from
    rank: int = 16  # of each pair of matrices
    learning_rate: float = 2e-4  # at its highest
    steps: int = 0  # 0: three passes over the data
    batch: int = 4  # samples of a step
    max_length: int = 2048  # tokens of the longest sample; a longer one is refused, never cut


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """`[reasoning]`: the tokens around the model's reasoning."""

    start_id: int = 12  # <think>
    end_id: int = 13  # </think>


@dataclass(frozen=True, kw_only=True)
class Requests:
    """`[requests]`: the gateway's rules for requests to this model."""

    max_tokens: int | None = None  # default of requests without one
    queue_length: int = 256  # most requests waiting for a slot
    queue_wait_s: float = 600.0  # longest wait for a slot
    fixed: Mapping[str, float | int | str | bool] = field(default_factory=dict)  # fields that clients cannot change
    capped: Mapping[str, float | int] = field(default_factory=dict)  # request field -> largest value
    lost_in_thought: LostInThought = LostInThought.REPORT  # for answers that end after reasoning, without content
    heal_tool_calls: HealToolCalls = HealToolCalls.SAFE  # for calls that the model wrote wrongly
    reask_tool_calls: int = 0  # 1 asks once more for a call that healing could not mend, in whole answers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe file, checked. `origin` is where it came from (a path, or "shipped")."""

    name: str
    title: str = ""  # for people
    arch: str = ""  # expected general.architecture of the GGUF
    default_profile: str = ""  # profile of `serve` without --profile
    model: Model
    context: Context = field(default_factory=Context)
    server: Server = field(default_factory=Server)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    adapters: tuple[Adapter, ...] = ()
    tune: Tune = field(default_factory=Tune)
    reasoning: Reasoning = field(default_factory=Reasoning)
    restart: Restart = field(default_factory=Restart)
    health: Health = field(default_factory=Health)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    requests: Requests = field(default_factory=Requests)
    origin: str = ""
