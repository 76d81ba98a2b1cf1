"""A checkpoint in safetensors becomes GGUF models of the store. Processes, disk, network.

    look ─▶ plan ─▶ fetch ─▶ stage ─▶ convert ─▶ for each quant: quantise ─▶ check ─▶ store

Each step writes under another name and renames at its end, into one work folder for the checkpoint and the build; so a
run after a kill goes on with the step where it was. The work folder goes when all quants are stored.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from nemotron_ops import files
from nemotron_ops.builds.converter import environment
from nemotron_ops.builds.source import source
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import HostError
from nemotron_ops.installation import Installation
from nemotron_ops.models import store
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.ref import Ref
from nemotron_ops.models.store import StoredModel
from nemotron_ops.operations.building import have_build, look_for_build
from nemotron_ops.operations.calibration import AUTO, check_matrix, matrix
from nemotron_ops.operations.convert_check import Answer, ask_model, check_file, stored_file
from nemotron_ops.operations.convert_plan import ConvertPlan, check_room, plan_of, quants_of
from nemotron_ops.operations.convert_source import (
    Checkpoint,
    fetched,
    find_checkpoint,
    left_to_fetch,
    read_tensors,
    stage,
)
from nemotron_ops.operations.further_programs import have_program
from nemotron_ops.operations.program_output import Tool, write_by
from nemotron_ops.progress import remark


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What is to be converted, to which quants. `imatrix` is a file, "auto" or ""; `pre` a pre-tokenizer's name."""

    target: str
    quants: str = "Q8_0"
    imatrix: str = ""
    revision: str = ""
    name: str = ""
    pre: str = ""
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Converted:
    """One model of the store, and what it answered when it was made; `new` is false where it was there already."""

    model: StoredModel
    answer: Answer
    new: bool = True

    @property
    def value(self) -> dict[str, Any]:
        answer = self.answer.text if self.answer.checked else None
        return {"id": self.model.id, "path": str(self.model.path), "new": self.new, "answer": answer}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One conversion under way."""

    request: ConvertRequest
    found: Checkpoint
    quants: tuple[str, ...]
    build: Build
    work: Path
    here: Installation

    @property
    def whole(self) -> Path:
        """The unquantised file."""
        return self.work / "whole.gguf"


def look(request: ConvertRequest, here: Installation) -> tuple[Checkpoint, int]:
    """What would be converted, and bytes to download for it; nothing is written."""
    quants_of(request.quants)
    check_matrix(request.imatrix)
    found = find_checkpoint(request.target, request.revision, request.name, here)
    return found, found.remote.size_bytes if found.remote else 0


def convert(request: ConvertRequest, here: Installation) -> tuple[Converted, ...]:
    """The models, one for each quant, converted unless they are in the store already.

    Raises UsageError, ModelError, HostError, FitError and the errors of building; finished steps are kept.
    """
    quants = quants_of(request.quants)
    check_matrix(request.imatrix)
    found = find_checkpoint(request.target, request.revision, request.name, here)
    build = have_build(look_for_build(here), here)
    work = here.layout.data / "conversions" / _job_id(request, found, build)
    work.mkdir(parents=True, exist_ok=True)
    job = _Job(request=request, found=found, quants=quants, build=build, work=work, here=here)
    try:
        with files.locked(work.with_name(f"{work.name}.lock"), timeout_s=0):
            made = _convert(job)
            if not request.keep:
                shutil.rmtree(work, ignore_errors=True)
    except filelock.Timeout as exc:
        raise HostError(f"cannot convert {found.what}: another process converts it now") from exc
    return made


def _convert(job: _Job) -> tuple[Converted, ...]:
    there = {q: found for q in job.quants if (found := _in_store(job, q))}
    todo = [q for q in job.quants if q not in there]
    made = {q: Converted(model=model, answer=Answer(), new=False) for q, model in there.items()}
    if todo:
        plan, tree = _prepare(job, todo)
        header = _make_whole(job, plan, tree)
        weights = matrix(job.request.imatrix, job.whole, job.build, tree, job.here)
        for quant in todo:
            made[quant] = _make_quant(job, plan, quant, header, weights)
    return tuple(made[q] for q in job.quants)


def _prepare(job: _Job, todo: list[str]) -> tuple[ConvertPlan, Path]:
    """The plan, after the checkpoint is here and disk and memory were checked; and llama.cpp's source."""
    here, found = job.here, job.found
    if found.remote:  # its heads are not here yet: twice its size is the least that a conversion takes
        size = found.remote.size_bytes
        needed = left_to_fetch(found, job.work, here) + (0 if job.whole.is_file() else size)
        if needed > (free := store.free_bytes(job.work)):
            raise HostError(
                f"cannot convert {found.what}: it takes more than {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                hint="make room (see `nemotron-ops models gc --dry-run`)",
            )
    folder = fetched(found, job.work, here)
    plan = plan_of(read_tensors(found, folder), todo)
    done = sum(p.stat().st_size for p in job.work.glob("*.gguf"))
    check_room(
        plan, found.what, free_bytes=store.free_bytes(job.work) + done, folder=str(job.work),
        free_memory_bytes=here.machine.ram_available_bytes,
    )  # fmt: skip
    stage(found, folder, job.work / "staged")
    return plan, source.tree(job.build.source, Sources(installation=here))


def _make_whole(job: _Job, plan: ConvertPlan, tree: Path) -> Header:
    """The unquantised file's header; the file is made if it is not there."""
    if not job.whole.is_file():
        python = environment.ensure(job.here.layout.data / "environments", job.here.report)
        half = _half(job.whole)
        argv = environment.converter_argv(
            python, tree, job.work / "staged", half, outtype=plan.outtype, pre=job.request.pre
        )
        env = environment.converter_environment(job.here.env)
        what = f"convert to {plan.outtype.upper()}"
        try:
            write_by(Tool(argv=argv, what=what, out=half, total=plan.whole_bytes, env=env), job.here)
        except HostError as exc:
            raise _explained(exc) from exc
        _finish(half, job.whole)
    return check_file(job.whole, most_bytes=plan.whole_bytes)


def _explained(exc: HostError) -> HostError:
    """The converter's failure, with the way on where it has one."""
    if any("pre-tokenizer was not recognized" in line for line in exc.log_tail):
        hint = "if the tokenizer is a known one, pruned, name its pre-tokenizer: `nemotron-ops convert --pre pixtral`"
        return HostError("cannot convert: llama.cpp does not know this tokenizer", hint=hint, log_tail=exc.log_tail)
    return exc


def _make_quant(job: _Job, plan: ConvertPlan, quant: str, like: Header, weights: Path | None) -> Converted:
    made = job.work / f"{quant}.gguf"
    if not made.is_file():
        half = _half(made)
        quantize = have_program(job.build, "llama-quantize", job.here)
        words = [str(quantize), *(("--imatrix", str(weights)) if weights else ()), str(job.whole), str(half), quant]
        write_by(Tool(argv=words, what=f"write {quant}", out=half, total=plan.quant_bytes[quant]), job.here)
        _finish(half, made)
    check_file(made, most_bytes=plan.quant_bytes[quant], like=like)
    answer = _answer(job, made)
    return Converted(model=_store(job, quant, made), answer=answer)


def _answer(job: _Job, made: Path) -> Answer:
    size, free = made.stat().st_size, job.here.machine.ram_available_bytes
    if size + (1 << 30) > free:
        remark(
            job.here.report,
            f"{made.stem} was not asked a question: it has {size / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free",
            warning=True,
        )
        return Answer()
    return ask_model(job.build.binary("llama-server"), made, job.work / "check")


def _store(job: _Job, quant: str, made: Path) -> StoredModel:
    """Move the file into the store and write its manifest, which makes the model exist."""
    found, layout = job.found, job.here.layout
    name = f"{found.repo.rpartition('/')[2]}-{quant}.gguf"
    target = store.repo_dir(layout, found.repo) / f"{found.commit[:12]}-converted" / name
    sha256 = files.sha256_of(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:  # the store is on another disk
        store.bring(made, target, copy=True)
        made.unlink()
    files.sync_dir(target.parent)
    now = store.now()
    model = StoredModel(
        repo=found.repo, quant=quant, revision=job.request.revision, commit=found.commit, source=_source(job),
        files=(stored_file(name, target, sha256),), fetched_at=now, used_at=now,
    )  # fmt: skip
    store.save(layout, model)
    return model


def _in_store(job: _Job, quant: str) -> StoredModel | None:
    """The model that this conversion made earlier, if its file is as it was."""
    path = store.manifest_path(job.here.layout, job.found.repo, quant)
    found = store.find(job.here.layout, Ref(repo=job.found.repo, quant=quant)) if path.is_file() else None
    if found and found.commit == job.found.commit and found.source == _source(job):
        return found if all(store.intact(f) for f in found.files) else None
    return None


def _source(job: _Job) -> str:
    asked = job.request.imatrix
    matrix_name = f", imatrix {asked if asked == AUTO else Path(asked).name}" if asked else ""
    return f"converted from {job.found.origin} by llama.cpp {job.build.version}{matrix_name}"


def _job_id(request: ConvertRequest, found: Checkpoint, build: Build) -> str:
    about = "\0".join((found.repo, found.origin, found.commit, build.id, request.pre, request.imatrix))
    slug = re.sub(r"[^\w.-]+", "-", found.repo, flags=re.ASCII)
    return f"{slug[:60]}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def _half(final: Path) -> Path:
    """The name of an unfinished file; those of killed runs are removed."""
    half = final.with_name(f"{final.stem}.part.gguf")
    half.unlink(missing_ok=True)
    return half


def _finish(half: Path, final: Path) -> None:
    with half.open("rb") as f:
        os.fsync(f.fileno())
    half.rename(final)
    files.sync_dir(final.parent)
