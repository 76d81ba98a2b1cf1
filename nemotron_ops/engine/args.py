"""The complete command lines of llama-server and llama-cli. Pure.

`server_argv` always sets what must not depend on llama.cpp's defaults: the listening address (a private unix socket),
the key file, `/metrics` (the deep probe), no web UI, no network for models, plain log lines. Settings are the fields of
a recipe's `[server]` table; None omits a flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemotron_ops.engine.flags import Flags, checked_args
from nemotron_ops.errors import EngineError

# Setting -> spelling, in the order of the command line. A pair is (on, off); an empty word omits that side.
FLAGS: dict[str, str | tuple[str, str]] = {
    "ctx_size": "--ctx-size",
    "parallel": "--parallel",
    "kv_unified": ("--kv-unified", "--no-kv-unified"),
    "n_gpu_layers": "--n-gpu-layers",
    "n_cpu_moe": "--n-cpu-moe",
    "split_mode": "--split-mode",
    "tensor_split": "--tensor-split",
    "main_gpu": "--main-gpu",
    "flash_attn": "--flash-attn",
    "cache_type_k": "--cache-type-k",
    "cache_type_v": "--cache-type-v",
    "batch_size": "--batch-size",
    "ubatch_size": "--ubatch-size",
    "threads": "--threads",
    "threads_batch": "--threads-batch",
    "prio": "--prio",
    "load_mode": "--load-mode",
    "ctx_checkpoints": "--ctx-checkpoints",
    "cache_ram_mib": "--cache-ram",
    "seed": "--seed",
    "temp": "--temp",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "special": ("--special", ""),
    "spec_type": "--spec-type",
}
NOT_FLAGS = frozenset({"extra_args", "port"})  # fields of `[server]` that are not flags of llama-server
CLI_SETTINGS = (
    "ctx_size",
    "n_gpu_layers",
    "n_cpu_moe",
    "threads",
    "load_mode",
    "seed",
    "prio",
    "temp",
    "top_p",
    "top_k",
    "min_p",
    "special",
)


def server_argv(
    *,
    binary: Path | str,
    model: Path | str,
    socket: Path | str,
    api_key_file: Path | str,
    alias: str,
    settings: Mapping[str, Any],
    mmproj: Path | str | None = None,
    extra: Sequence[str] = (),
    flags: Flags | None = None,
    device: str = "",
    slot_save_path: Path | str = "",
) -> tuple[str, ...]:
    """llama-server's complete command line.

    `socket`, `api_key_file` and `slot_save_path` may be the placeholders "{socket}", "{api_key_file}" and
    "{slots_dir}", which the supervisor fills in for each process. Raises EngineError for a setting that this build's
    `flags` do not know, UsageError for an `extra` flag that is not allowed.
    """
    argv = [str(binary), "--model", str(model), "--alias", alias, "--host", str(socket)]
    argv += ["--api-key-file", str(api_key_file), "--metrics", "--slots", _no_ui(flags), "--offline"]
    argv += ["--log-colors", "off", "--log-prefix", "--log-timestamps"]
    if mmproj:
        argv += ["--mmproj", str(mmproj)]
    if device:
        argv += ["--device", device]
    if slot_save_path:
        argv += ["--slot-save-path", str(slot_save_path)]
    argv += [*setting_words(settings, FLAGS, flags), *checked_args(extra, flags)]
    return tuple(argv)


def cli_argv(
    *,
    binary: Path | str,
    model: Path | str,
    settings: Mapping[str, Any],
    prompt: str | None = None,
    single_turn: bool = False,
    verbose_prompt: bool = False,
    flags: Flags | None = None,
) -> tuple[str, ...]:
    """llama-cli's command line for a conversation, with the how-to guide's flags.

    `verbose_prompt` with `settings["special"]` shows `<think>` (12) and `</think>` (13), as in the guide.
    """
    shown = {k: settings.get(k) for k in CLI_SETTINGS}
    argv = [str(binary), "--model", str(model), "--offline", *setting_words(shown, FLAGS, flags)]
    if verbose_prompt:
        argv.append("--verbose-prompt")
    if prompt is not None:
        argv += ["--prompt", prompt]
    if single_turn:
        argv.append("--single-turn")
    return tuple(argv)


def setting_words(
    settings: Mapping[str, Any], table: Mapping[str, str | tuple[str, str]], flags: Flags | None
) -> list[str]:
    """`settings` as words of a command line, in the table's order. Raises EngineError for unknown ones."""
    if unknown := set(settings) - set(table) - NOT_FLAGS:
        raise EngineError(f"cannot make a command line: {sorted(unknown)[0]!r} is not a setting of llama-server")
    words: list[str] = []
    for name, spelling in table.items():
        words += _one(name, spelling, settings.get(name), flags)
    if settings.get("prio") is not None and settings.get("threads_batch") is not None:
        # With --threads-batch the batch threads no longer copy --prio (common/common.cpp:290); -1 is rejected there.
        words += ["--prio-batch", str(max(0, int(settings["prio"])))]
    return words


def _one(name: str, spelling: str | tuple[str, str], value: Any, flags: Flags | None) -> list[str]:
    if value is None:
        return []
    if isinstance(spelling, tuple):
        word = spelling[0] if value else spelling[1]
        words = [word] if word else []
    else:
        words = [spelling, str(value)]
    if words and flags is not None and flags.find(words[0]) is None:
        raise EngineError(
            f"cannot use setting {name}: this llama.cpp build has no {words[0]}",
            hint="build a newer llama.cpp with `nemotron-ops build`, or leave the setting out",
        )
    return words


def _no_ui(flags: Flags | None) -> str:
    if flags is not None and flags.find("--no-ui") is None and flags.find("--no-webui") is not None:
        return "--no-webui"  # its name before llama.cpp v0.5.0
    return "--no-ui"
