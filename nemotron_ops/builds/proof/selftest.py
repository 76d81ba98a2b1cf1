"""The self-test: a new binary must give known answers before it is used. llama-server, llama-bench, disk.

A build that starts and answers `/health` can still crash on quantised models, or compute on the CPU instead of the GPU.
So the test loads tiny quantised models of both Nemotron architectures on the build's own device, in several
configurations, and compares their answers word by word.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_ops import proc
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.proof.proofs import Check, SelfTestFailed
from nemotron_ops.builds.spec import Backend
from nemotron_ops.engine.client import Client
from nemotron_ops.engine.flags import parse_help
from nemotron_ops.engine.once import started
from nemotron_ops.errors import EngineError
from nemotron_ops.models import synthetic
from nemotron_ops.progress import Report, Step

QUANT = "Q8_0"  # the crashes to be found do not occur with F32 or F16
READY_TIMEOUT_S = 180.0  # a first start on a GPU may compile kernels
RUN_TIMEOUT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """Programs to be tested: those in `folder/bin`, made for `backend` from `commit` (as abbreviated in the build)."""

    folder: Path
    backend: Backend
    commit: str

    @property
    def server(self) -> Path:
        return self.folder / "bin" / "llama-server"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of a self-test. `on` is the device that computed; `whole` is false if the build's own was not here."""

    on: str
    whole: bool
    passed: tuple[str, ...]
    rates: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # every spelling of every flag of llama-server

    def to_json(self) -> dict[str, Any]:
        return {
            "on": self.on,
            "whole": self.whole,
            "passed": list(self.passed),
            "tokens_per_s": dict(self.rates),
            "devices": list(self.devices),
            "flags": list(self.flags),
        }


def prove(
    binaries: Binaries, *, workdir: Path, env: Mapping[str, str], report: Report, gpu: bool | None = None
) -> Proof:
    """Run every check on `binaries`. Raises SelfTestFailed at the first check that fails.

    `gpu` says whether the device is here; without it a GPU build shows only that it starts and computes on the
    CPU, and the proof is not whole.
    """
    backend = binaries.backend
    gpu = backend in proofs.GPU_BACKENDS if gpu is None else gpu
    names = _start_once(binaries, env)
    if gpu and not proofs.has_device(names, backend):
        raise SelfTestFailed(
            f"cannot trust the build: it is for {backend}, and sees only {', '.join(names) or 'the CPU'}",
            hint="is the driver loaded? `nemotron-ops doctor` looks",
        )
    todo = proofs.checks(gpu=gpu)
    report(Step(what="self-test", done=0, total=len(todo) + 1))
    for i, check in enumerate(todo):
        _run(check, binaries.server, workdir, env, gpu=gpu)
        report(Step(what="self-test", done=i + 1, total=len(todo) + 1))
    rates = _bench(binaries.folder, workdir, env, gpu=gpu)
    report(Step(what="self-test", done=len(todo) + 1, total=len(todo) + 1))
    return Proof(
        on=str(backend) if gpu else "cpu",
        whole=gpu or backend not in proofs.GPU_BACKENDS,
        passed=tuple(check.name for check in todo),
        rates=rates,
        devices=names,
        flags=_flags(binaries.server, env),
    )


def device_names(folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Devices that the llama-server in `folder/bin` lists; none if it does not start."""
    return proofs.devices(
        proc.run([folder / "bin" / "llama-server", "--list-devices"], env=env, timeout_s=RUN_TIMEOUT_S).stdout
    )


def _start_once(binaries: Binaries, env: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that llama-server lists, after a check that it starts and names the commit that was built."""
    version = proc.run([binaries.server, "--version"], env=env, timeout_s=RUN_TIMEOUT_S)
    if not version.ok:
        raise SelfTestFailed(
            f"cannot trust the build: llama-server --version {_ending(version)}",
            log_tail=tuple((version.stderr or version.stdout).splitlines()[-10:]),
        )
    if wrong := proofs.version_mismatch(version.stdout + version.stderr, binaries.commit):
        raise SelfTestFailed(f"cannot trust the build: {wrong}")
    return device_names(binaries.folder, env)


def _flags(server: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """All flags of llama-server, recorded now: a machine without its driver could not run it later."""
    done = proc.run([server, "--help"], env=env, timeout_s=RUN_TIMEOUT_S)
    if not done.ok:
        raise SelfTestFailed(f"cannot trust the build: llama-server --help {_ending(done)}")
    return parse_help(done.stdout).spellings


def _run(check: Check, server: Path, workdir: Path, env: Mapping[str, str], *, gpu: bool) -> None:
    """Run one check; on a GPU, also check that every layer was offloaded."""
    model = synthetic.ensure(check.kind, workdir / "models", quant=QUANT)
    try:
        with started(
            binary=server,
            model=model,
            workdir=workdir / "run",
            settings=check.settings,
            extra=proofs.VERBOSE if gpu else (),
            ready_timeout_s=READY_TIMEOUT_S,
            env=env,
        ) as client:
            _ask_all(check, client)
            log = (workdir / "run" / "llama-server.log").read_text(errors="replace")
    except EngineError as exc:
        raise SelfTestFailed(
            f"cannot trust the build: self-test ({check.name}): {exc.message}", hint=exc.hint, log_tail=exc.log_tail
        ) from exc
    if gpu and (left := proofs.not_offloaded(log)):
        raise SelfTestFailed(f"cannot trust the build: self-test ({check.name}): {left}")


def _ask_all(check: Check, client: Client) -> None:
    """Ask every question, `at_once` of them at a time."""

    def ask(question: str) -> dict[str, Any]:
        message = {"role": "user", "content": question}
        return client.chat([message], max_tokens=64, temperature=0, timeout_s=RUN_TIMEOUT_S)

    questions = list(synthetic.ANSWERS)
    with ThreadPoolExecutor(max_workers=check.at_once) as pool:
        answers = list(pool.map(ask, questions))
    for question, answer in zip(questions, answers, strict=True):
        if wrong := proofs.judge(answer, synthetic.ANSWERS[question]):
            raise SelfTestFailed(f"cannot trust the build: self-test ({check.name}), asked {question!r}: {wrong}")


def _bench(folder: Path, workdir: Path, env: Mapping[str, str], *, gpu: bool) -> dict[str, float]:
    """Tokens per second of the tiny model; on a GPU, also check that every layer was offloaded."""
    bench = folder / "bin" / "llama-bench"
    model = synthetic.ensure("moe", workdir / "models", quant=QUANT)
    layers = "99" if gpu else "0"
    what = ["-p", "64", "-n", "32", "-r", "2", "-t", "1", "-ngl", layers, "-o", "json", "-v"]
    done = proc.run([bench, "-m", model, *what], env=env, timeout_s=RUN_TIMEOUT_S)
    if not done.ok:
        raise SelfTestFailed(
            f"cannot trust the build: llama-bench {_ending(done)}", log_tail=tuple(done.stderr.splitlines()[-10:])
        )
    if gpu and (left := proofs.not_offloaded(done.stderr)):
        raise SelfTestFailed(f"cannot trust the build: llama-bench: {left}")
    try:
        return proofs.bench_rates(done.stdout)
    except (ValueError, KeyError) as exc:
        raise SelfTestFailed(f"cannot trust the build: llama-bench gave no numbers ({exc})") from exc


def _ending(done: proc.Finished) -> str:
    if done.returncode == -4:
        return "was ended by signal 4 (SIGILL)"
    if done.returncode < 0:
        return f"was ended by signal {-done.returncode}"
    return f"ended with {done.returncode}"
