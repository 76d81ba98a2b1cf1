"""An adapter merged into its base, as a GGUF of its own: llama-export-lora, then llama-quantize. Processes, disk.

The programs are the build's own; llama-export-lora is compiled when it is first wanted. Both write beside the target,
under a hidden name; the target appears by a rename, after the merged model was compared with the base in llama-server.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from nemotron_ops import files
from nemotron_ops.builds.store import store
from nemotron_ops.engine.once import started
from nemotron_ops.errors import HostError, ModelError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.local import read_header
from nemotron_ops.operations.further_programs import have_program
from nemotron_ops.operations.program_output import Tool, write_by
from nemotron_ops.operations.tokens import SETTINGS, tokenized
from nemotron_ops.operations.tune_compare import proven_adapter
from nemotron_ops.operations.tune_proof import SAMPLES, logprob, spread
from nemotron_ops.operations.tuning import Base, base_of, samples_in
from nemotron_ops.progress import remark
from nemotron_ops.tune import jobs
from nemotron_ops.tune.merge_need import QUANTS, is_quantised, merged_bytes, quantised_bytes

SPARE_BYTES = 64 << 20


def merge(name: str, quant: str, to: Path, here: Installation) -> dict[str, Any]:
    """Write base and adapter of a job as one GGUF of type `quant` to `to`; returns its card.

    Raises UsageError for an unknown type or an unproven job, HostError for a full disk or a tool that fails, ModelError
    where the merged model is no better than the base. `to` is then as it was.
    """
    quant = quant.upper()
    if quant not in QUANTS:
        raise UsageError(f"cannot write {quant}: it is no type of GGUF weights", hint=f"known: {', '.join(QUANTS)}")
    adapter, card = proven_adapter(name, here)
    base = base_of(jobs.read(here.layout.state, name).asked, here)
    header = read_header(base.files.path)
    _check_base(header, card, base)
    check_disk(to, header, quant)
    export_lora = have_program(store.find(here.layout, base.binary.parent.parent.name), "llama-export-lora", here)
    room = to.absolute().with_name(f".{to.name}.merging")
    with files.locked(room.with_name(f"{room.name}.lock")):
        shutil.rmtree(room, ignore_errors=True)  # of a merge that was killed
        room.mkdir()
        try:
            whole, final = room / "merged.gguf", room / "quantised.gguf"
            words: list[str | Path] = [export_lora, "-m", base.files.path, "--lora", adapter, "-o", whole]
            write_by(Tool(argv=words, what="merge the adapter", out=whole, total=merged_bytes(header)), here)
            if is_quantised(header):
                remark(here.report, f"{base.files.path.name} is quantised itself: a merge from BF16 loses less")
            quantize = base.binary.with_name("llama-quantize")
            words = [quantize, "--allow-requantize", whole, final, quant]
            write_by(Tool(argv=words, what=f"write {quant}", out=final, total=quantised_bytes(header, quant)), here)
            whole.unlink()
            merged = {**card, "merged": {"quant": quant, **_proof(name, base, final, card, here)}}
            merged["sha256"] = files.sha256_of(final)
            with final.open("rb") as f:
                os.fsync(f.fileno())
            files.write_json(to.with_suffix(".card.json"), merged)
            final.replace(to)
            files.sync_dir(to.absolute().parent)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    room.with_name(f"{room.name}.lock").unlink(missing_ok=True)
    return merged


def _check_base(header: Header, card: dict[str, Any], base: Base) -> None:
    if header.values.get("split.count", 1) not in (0, 1):
        raise UsageError(
            f"cannot merge into {base.files.path.name}: it is one of several files",
            hint="join them with the build's llama-gguf-split --merge, and tune on that file",
        )
    if card["base_sha256"] != base.sha256:
        raise ModelError(f"cannot merge: the adapter was trained on another file than {base.files.path.name}")


def check_disk(to: Path, header: Header, quant: str) -> None:
    """Raises HostError unless both files fit beside `to`."""
    folder = to.absolute().parent
    needed = merged_bytes(header) + quantised_bytes(header, quant) + SPARE_BYTES
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise HostError(f"cannot write {to}: {exc.strerror or exc}") from exc
    if free < needed:
        raise HostError(
            f"cannot write {to}: {free / 1e9:.1f} GB are free in {folder}, up to {needed / 1e9:.1f} GB are needed",
            hint="the adapter alone needs no merge: `tune export` without --merge",
        )


def _proof(name: str, base: Base, merged: Path, card: dict[str, Any], here: Installation) -> dict[str, float]:
    """The merged model in the engine, with the samples of the adapter's proof. Raises ModelError if it learnt none."""
    asked = jobs.read(here.layout.state, name).asked
    log = jobs.folder_of(here.layout.state, name) / "engine"
    samples = tokenized(samples_in(asked.tests or asked.data), base.files.path, base.binary, log)
    with started(binary=base.binary, model=merged, workdir=log, settings=SETTINGS) as engine:
        found = round(logprob(engine, spread(samples, SAMPLES), 1.0), 4)
    before = card["proof"]["base_logprob"]
    if not found > before:
        raise ModelError(
            f"cannot merge {name}: the answers of the merged model are no likelier than the base's "
            f"({found} and {before})",
            hint="a finer type, such as Q8_0, keeps more",
        )
    return {"logprob": found, "base_logprob": before}
