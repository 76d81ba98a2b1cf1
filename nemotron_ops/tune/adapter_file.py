"""Writes a LoRA adapter as GGUF, from the two files that PEFT saves. Disk.

No torch is needed, and neither is the checkpoint: of the base only its config.json and the sha256 of its GGUF file are
read. The sha256 is kept in the file: an adapter on another base of equal shapes would load, and answer nonsense.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nemotron_ops.errors import ModelError
from nemotron_ops.files import read_json, sync_dir
from nemotron_ops.tune.adapter_check import BASE_KEY
from nemotron_ops.tune.adapter_tensors import Array, alpha_of, arch_of, check_learnt, gguf_tensors
from nemotron_ops.tune.safetensors import tensors_of


def write_adapter(peft_dir: Path, config: Mapping[str, Any], out: Path, *, base_sha256: str) -> int:
    """Write the adapter in `peft_dir` to `out`, for the base with `config`; returns the number of adapted weights.

    Raises ModelError for what llama.cpp could not apply, and for an adapter that is not finite or all zero.
    """
    peft = read_json(peft_dir / "adapter_config.json")
    if not isinstance(peft, dict):
        raise ModelError(f"cannot read {peft_dir / 'adapter_config.json'}: there is no such file")
    alpha = alpha_of(peft)
    tensors = dict(gguf_tensors(peft, config, tensors_of(peft_dir / "adapter_model.safetensors")))
    check_learnt(tensors.items())
    write_gguf(out, tensors, arch=arch_of(config), alpha=alpha, base_sha256=base_sha256)
    return len(tensors) // 2


def write_gguf(out: Path, tensors: Mapping[str, Array], *, arch: str, alpha: float, base_sha256: str = "") -> None:
    """Write adapter tensors by their llama.cpp names; a kill leaves the old file or the new one."""
    import gguf

    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=out.parent, prefix=".writing-") as room:
            made = Path(room) / out.name
            writer = gguf.GGUFWriter(str(made), arch)
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", alpha)
            if base_sha256:
                writer.add_string(BASE_KEY, base_sha256)
            for name, data in sorted(tensors.items()):
                writer.add_tensor(name, data)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(made, out)
        sync_dir(out.parent)
    except OSError as exc:
        raise ModelError(f"cannot write {out}: {exc.strerror or exc}") from exc


def read_config(checkpoint: Path) -> dict[str, Any]:
    """config.json of a checkpoint. Raises ModelError if there is none."""
    path = checkpoint / "config.json"
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise ModelError(f"cannot read {path}: {exc}") from exc
    if not isinstance(value, dict):
        raise ModelError(f"cannot read {path}: it is no object")
    return value
