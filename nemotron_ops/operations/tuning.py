"""Trains a LoRA from one's own data: check, tokenize, train, write, prove, publish. Processes, disk.

Each step can be done again, so `resume` runs all of them: the trainer goes on from its newest whole checkpoint. A
trainer that has outlived the command that started it is adopted.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import FitError, HostError, ModelError, UsageError
from nemotron_ops.files import sha256_of, write_atomic, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.operations import tiny_train
from nemotron_ops.operations.adapters import base_sha256, published_path
from nemotron_ops.operations.building import have_build, look_for_build
from nemotron_ops.operations.fetching import TRAINABLE
from nemotron_ops.operations.model_files import ModelFiles, have_files
from nemotron_ops.operations.tokens import Tokens, tokenized
from nemotron_ops.operations.tune_lend import WhileBusy, left_behind, lent, put_back, wait_for_room
from nemotron_ops.operations.tune_proof import Proof, prove
from nemotron_ops.operations.wish import ModelWish, Wish, plans_for
from nemotron_ops.progress import Step, remark
from nemotron_ops.recipes.load import load_settings
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.tune import environment, jobs, trainer
from nemotron_ops.tune.adapter_file import read_config, write_adapter
from nemotron_ops.tune.data_check import Checked, Rules, check
from nemotron_ops.tune.jobs import Asked, Job, State
from nemotron_ops.tune.need import Run, need
from nemotron_ops.tune.network import network_of
from nemotron_ops.tune.rows import Unreadable, rows_of
from nemotron_ops.tune.shapes import Sample, sample_of
from nemotron_ops.tune.targets import DEFAULT, EXPERTS, choose
from nemotron_ops.tune.trainer import Trainer

PAUSED, NOT_FINITE, OUT_OF_MEMORY = 10, 11, 12  # exit codes of the trainer
POLL_S = 0.05
SAVE_S = 300.0  # for the checkpoint after Ctrl-C
STALL_LEAST_S, STALL_STEPS = 600.0, 20  # no step for so long, or for so many times the slowest one
CHECKPOINTS = 8  # of one job, at least
LARGE = 10**9  # parameters from which activations are computed again in the backward pass
CHILD = Path(tiny_train.CHILD) / "train.py"


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is trained on: the GGUF that is served, its checkpoint, and the programs."""

    plan: Plan
    files: ModelFiles
    sha256: str
    checkpoint: Path
    binary: Path
    python: Path


def new_job(name: str, asked: Asked, here: Installation) -> Job:
    """A job's record, kept; one of the same name and model that is over is replaced.

    Raises UsageError, before anything is removed, if the name is taken or the checkpoint is missing.
    """
    plan = _plan(asked, here)
    checkpoint_of(asked, plan)
    folder = jobs.folder_of(here.layout.state, name)
    if (folder / "job.json").exists():
        old = jobs.read(here.layout.state, name)
        if old.state not in (State.DONE, State.FAILED) or old.recipe != plan.recipe.name:
            raise UsageError(
                f"cannot start job {name}: there is one of that name, for {old.recipe}, {old.state}",
                hint=f"`nemotron-ops tune resume {name}`, or `tune rm {name}`, or another --name",
            )
        jobs.remove(here.layout.state, name)
    job = Job(name=name, recipe=plan.recipe.name, asked=asked, created_at=jobs.now(), worker=jobs.myself())
    folder.mkdir(parents=True, exist_ok=True)
    jobs.write(here.layout.state, job)
    return job


def checked_data(asked: Asked, here: Installation) -> Checked:
    """The findings in the job's data. Raises UsageError where a file cannot be read at all."""
    rules = Rules(tests=tuple(map(Path, asked.tests)))
    return check(map(Path, asked.data), rules, here.report)


def run(name: str, here: Installation) -> Job:
    """Do all that is left of a job. Raises the error of whatever fails; the job is then `failed` with its reason."""
    if left_behind(here.layout.state):
        put_back(here.layout)
    with jobs.working_on(here.layout.state, name):
        job = replace(jobs.read(here.layout.state, name), worker=jobs.myself(), reason="")
        try:
            return _run(job, here)
        except BaseException as exc:
            reason = getattr(exc, "message", None) or str(exc) or type(exc).__name__
            state = State.PAUSED if isinstance(exc, KeyboardInterrupt) else State.FAILED
            now = jobs.read(here.layout.state, name)
            jobs.write(
                here.layout.state, replace(now, state=state, reason="interrupted" if state is State.PAUSED else reason)
            )
            raise


def _run(job: Job, here: Installation) -> Job:
    folder, state = jobs.folder_of(here.layout.state, job.name), here.layout.state

    def at(job: Job, where: State, **about: Any) -> Job:
        changed = replace(job, state=where, about={**job.about, **about})
        jobs.write(state, changed)
        return changed

    job = at(job, State.PREPARING)
    if errors := checked_data(job.asked, here).errors:
        raise UsageError(f"cannot train on this data: {errors} findings", hint="`nemotron-ops tune check` lists them")
    base = base_of(job.asked, here)
    samples = tokenized(samples_in(job.asked.data), base.files.path, base.binary, folder / "engine", here.report)
    plan, about = plan_of(job, base, samples)
    write_atomic(folder / "samples.jsonl", "".join(json.dumps(s.value) + "\n" for s in samples), mode=0o600)
    write_json(folder / "plan.json", plan)
    job = at(job, State.TRAINING, base_sha256=base.sha256, **about)
    trained = (folder / "adapter" / "adapter_model.safetensors").is_file()
    if not trained and (paused := _train_with_room(job, base, plan, here)) is not None:
        return paused
    job = at(job, State.EXPORTING)
    adapter = folder / "adapter.gguf"
    write_adapter(folder / "adapter", read_config(base.checkpoint), adapter, base_sha256=base.sha256)
    job = at(job, State.PROVING)
    return _publish(job, base, samples, adapter, here)


def _publish(job: Job, base: Base, samples: list[Tokens], adapter: Path, here: Installation) -> Job:
    """Prove the adapter, and publish it under the job's name. Raises ModelError if it may not be."""
    folder, state = jobs.folder_of(here.layout.state, job.name), here.layout.state
    here.report(Step(what="prove the adapter", done=0, total=1, unit="adapter"))
    tests = (
        tokenized(samples_in(job.asked.tests), base.files.path, base.binary, folder / "engine")
        if job.asked.tests
        else []
    )
    proof = prove(
        tests or samples, held_out=bool(tests), model=base.files.path, adapter=adapter, binary=base.binary,
        log=folder / "engine",
    )  # fmt: skip
    here.report(Step(what="prove the adapter", done=1, total=1, unit="adapter"))
    card = card_of(job, proof, adapter)
    write_json(folder / "card.json", card)
    if proof.faults:
        raise ModelError(f"cannot publish {job.name}: {'; '.join(proof.faults)}", hint=f"it is kept: {adapter}")
    public = published_path(here.layout, job.recipe, job.name)
    write_json(public.with_suffix(".json"), card)
    write_atomic(public, adapter.read_bytes())
    done = replace(job, state=State.DONE, about={**job.about, "proof": proof.value})
    jobs.write(state, done)
    return done


def card_of(job: Job, proof: Proof, adapter: Path) -> dict[str, Any]:
    """What is known of an adapter: its base, its data, its training and its proof."""
    return {
        "name": job.name, "recipe": job.recipe, "sha256": sha256_of(adapter), "base_sha256": job.about["base_sha256"],
        "data": [{"file": Path(f).name, "sha256": sha256_of(Path(f))} for f in job.asked.data],
        "training": {k: v for k, v in job.about.items() if k not in ("proof", "base_sha256")}, "proof": proof.value,
    }  # fmt: skip


def base_of(asked: Asked, here: Installation) -> Base:
    """The base with everything that training needs, made or fetched where it is not here."""
    plan = _plan(asked, here)
    recipe = plan.recipe
    given = checkpoint_of(asked, plan)
    build = have_build(look_for_build(here, confirm=lambda _: True), here)
    binary = build.binary("llama-server")
    python = environment.ensure(here.layout.data / "environments", here.report)
    if recipe.model.synthetic == TRAINABLE:
        tiny_train.ensure(here, python, binary)
    files = have_files(plan, here, may_fetch=True)
    checkpoint = Path(given).expanduser() if given else files.path.parent
    return Base(
        plan=plan, files=files, sha256=base_sha256(files, here), checkpoint=checkpoint, binary=binary, python=python
    )


def checkpoint_of(asked: Asked, plan: Plan) -> str:
    """The folder of the checkpoint; "" for the tiny trainable model. Raises UsageError where there is none."""
    recipe = plan.recipe
    given = asked.checkpoint or recipe.tune.checkpoint
    if recipe.model.synthetic == TRAINABLE:
        return given
    if not given:
        raise UsageError(
            f"cannot tune {recipe.name}: its 16-bit checkpoint is needed",
            hint="pass --checkpoint FOLDER (config.json and safetensors), or set tune.checkpoint in the recipe",
        )
    read_config(Path(given).expanduser())
    return given


def plan_of(job: Job, base: Base, samples: list[Tokens]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the trainer reads, and what is told of it. Raises UsageError for a sample that is too long."""
    asked, own = job.asked, base.plan.recipe.tune
    network = network_of(read_config(base.checkpoint))
    most = asked.max_length or own.max_length
    too_long = [i for i, s in enumerate(samples, 1) if len(s.ids) > most]
    if too_long:
        has = len(samples[too_long[0] - 1].ids)
        raise UsageError(
            f"cannot train on sample {too_long[0]}: it has {has} tokens, more than {most}",
            hint=f"{len(too_long)} are too long; shorten them or raise --max-length: a sample is never cut",
        )
    chosen = choose(network, rank=asked.rank or own.rank, experts=asked.experts)
    batch = min(own.batch, len(samples))
    steps = asked.steps or own.steps or max(1, -(-3 * len(samples) // batch))
    longest = max(len(s.ids) for s in samples)
    memory = need(network, chosen, Run(max_length=longest, batch=batch, weight_bytes=4, on_gpu=False))
    plan = {
        "checkpoint": str(base.checkpoint.absolute()), "rank": chosen.rank, "alpha": 2 * chosen.rank,
        "targets": [t for t in chosen.targets if t in DEFAULT],
        "parameters": [f"mixer.{t}" for t in chosen.targets if t in EXPERTS],
        "steps": steps, "batch": batch, "learning_rate": asked.rate or own.learning_rate, "seed": asked.seed,
        "save_every": max(1, steps // CHECKPOINTS), "threads": max(1, (os.cpu_count() or 2) // 2),
        "checkpointing": network.n_parameters > LARGE,
    }  # fmt: skip
    about = {
        "samples": len(samples), "thinking_samples": sum(s.text.thinking for s in samples), "steps": steps,
        "trained_parameters": chosen.n_trained, "parameters": network.n_parameters, "need_bytes": memory.total,
        "rank": chosen.rank, "learning_rate": plan["learning_rate"], "targets": list(chosen.targets),
    }  # fmt: skip
    return plan, about


def samples_in(paths: tuple[str, ...]) -> list[Sample]:
    """All samples of checked files."""
    rows = (row for path in paths for _, row in rows_of(Path(path)))
    return [sample_of(row) for row in rows if not isinstance(row, Unreadable)]


def _plan(asked: Asked, here: Installation) -> Plan:
    wish = Wish(models=(ModelWish(target=asked.target),))
    return plans_for(wish, here, load_settings(here.layout))[0]


def _train_with_room(job: Job, base: Base, plan: Mapping[str, Any], here: Installation) -> Job | None:
    """`train_to_its_end`, with the memory of instances that `--while-busy` takes out of service. Raises FitError."""
    with lent(job.name, job.asked.while_busy, here):
        if not trainer.held(jobs.folder_of(here.layout.state, job.name)):  # one that is at work has its memory
            if job.asked.while_busy == WhileBusy.WAIT:
                wait_for_room(lambda: job.about["need_bytes"] <= _free_bytes(), here)
            _check_memory(job.about, here)
        return train_to_its_end(job, base.python, int(plan["steps"]), here)


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _check_memory(about: Mapping[str, Any], here: Installation) -> None:
    free = _free_bytes()
    remark(here.report, f"needs about {about['need_bytes'] / 1e9:.2f} GB of memory, {free / 1e9:.1f} GB are free")
    if about["need_bytes"] > free:
        raise FitError(
            f"cannot train here: {about['need_bytes'] / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            hint="--while-busy stop frees the memory of what is served; shorter samples need less",
        )


def train_to_its_end(job: Job, python: Path, steps: int, here: Installation) -> Job | None:
    """Run the trainer to its end, or the one that is at work; returns the job if it was paused.

    Raises the classified cause of any other end. Ctrl-C asks it to save, as `tune pause` does; any other error ends it.
    """
    folder, state = jobs.folder_of(here.layout.state, job.name), here.layout.state
    at_work = trainer.at_work(folder)
    if at_work:
        remark(here.report, f"the trainer of {job.name} is at work already: watching it")
    argv = [str(python), str(CHILD)]
    child = at_work or trainer.start(argv, folder, tiny_train.child_environment(here.env))
    try:
        peak = _watch(child, job.name, steps, here)
    except KeyboardInterrupt:
        _end(child, signal.SIGTERM)
        raise
    except BaseException:
        _end(child, signal.SIGKILL)
        raise
    code = child.end()
    if code == 0:
        jobs.write(state, replace(job, about={**job.about, "peak_bytes": peak}))
        return None
    said = jobs.last_error(state, job.name)
    tail = tuple((folder / "trainer.log").read_text(errors="replace").splitlines()[-10:])
    match code:
        case 10:
            paused = replace(job, state=State.PAUSED)
            jobs.write(state, paused)
            return paused
        case 11:
            raise ModelError(f"cannot go on: {said}; the last checkpoint is kept", hint="lower --rate, and resume")
        case 12:
            raise FitError(f"cannot train: {said}", hint="shorten --max-length, or lower tune.batch")
        case -9:
            raise HostError("cannot train: the trainer was killed", hint=f"`nemotron-ops tune resume {job.name}`")
        case _:
            raise HostError(f"cannot train: the trainer ended with {code}", log_tail=tail)


def _end(child: Trainer, number: signal.Signals) -> None:
    """Send the signal until the trainer is gone; SIGKILL where it has not saved in time."""
    limit = time.monotonic() + SAVE_S
    while child.end() is None:
        child.signal(number if time.monotonic() < limit else signal.SIGKILL)
        time.sleep(POLL_S)


def _watch(child: Trainer, name: str, steps: int, here: Installation) -> int:
    """Report steps until the trainer ends; returns its peak of memory. Raises HostError if it stalls."""
    import psutil

    seen, moved, slowest, peak = 0, time.monotonic(), 0.0, 0
    while child.end() is None:
        done = len(jobs.progress(here.layout.state, name))
        now = time.monotonic()
        if done != seen:
            slowest = max(slowest, now - moved) if seen else 0.0
            seen, moved = done, now
            last = jobs.progress(here.layout.state, name)[-1]
            here.report(Step(what=f"train, loss {last['loss']:.3f}", done=done, total=steps, unit="steps"))
        if now - moved > max(STALL_LEAST_S, STALL_STEPS * slowest):
            raise HostError(
                f"cannot train: no step for {now - moved:.0f} s", hint="see trainer.log in the job's folder"
            )
        if pid := child.pid:
            with suppress(psutil.Error):
                peak = max(peak, psutil.Process(pid).memory_info().rss)
        time.sleep(POLL_S)
    return peak
