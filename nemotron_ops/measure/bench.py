"""`bench`: every load on every endpoint, repeats interleaved, each result kept as soon as it is complete. HTTP, disk.

Repeats are interleaved (A B A B …), so that a machine that grows warm or busy does so for all that is compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import ControlError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.measure import llama_bench, remote, runs
from nemotron_ops.measure.endpoint import Started, started
from nemotron_ops.measure.generator import Measured, calibrate, measure
from nemotron_ops.measure.identity import build_of, machine_of, made_by, versions
from nemotron_ops.measure.load import Load
from nemotron_ops.measure.power.energy import together as all_of
from nemotron_ops.measure.power.meter import Meter, meter_of
from nemotron_ops.measure.request import Target
from nemotron_ops.measure.runs import Result, Run
from nemotron_ops.measure.summary import Limit, summarise
from nemotron_ops.progress import remark

Speeds = Mapping[str, Mapping[str, float]]  # by load's name: figures of llama-bench


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model at one endpoint, and what is known of how it came about."""

    label: str
    target: Target
    made_by: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to measure: recipes (with builds, if other than the current one), or models of a running endpoint.

    `at` names the machine to which `url` leads through ssh, and `ssh_config` is ssh's file, if not the user's own.
    """

    recipes: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    url: str = ""
    at: str = ""
    ssh_config: Path | None = None
    model: str = ""
    api_key: str = field(default="", repr=False)
    loads: tuple[Load, ...] = (Load(),)
    repeats: int = 5
    limit: Limit = field(default_factory=Limit)
    llama_bench: bool = False


def bench(asked: Asked, here: Installation) -> tuple[Run, ...]:
    """Measure; returns one Run per subject. Raises what serving raises, EngineError where nothing answers."""
    alone = _alone(asked, here) if asked.llama_bench else {}
    with ExitStack() as stack:
        subjects = subjects_of(asked, here, stack)
        meter = meter_of(here, stack, remote=bool(asked.url))
        return measure_all(subjects, asked, here, meter, alone)


def _alone(asked: Asked, here: Installation) -> dict[str, Speeds]:
    """llama-bench's speeds by subject's label, measured before the endpoints take memory and processor."""
    if not asked.recipes:
        raise UsageError("cannot run llama-bench: it needs a recipe", hint="nemotron-ops bench tiny --llama-bench")
    return {
        f"{recipe} {build}".strip(): llama_bench.speeds(
            llama_bench.of_recipe(recipe, build, here), asked.loads, asked.repeats, here
        )
        for build in asked.builds or ("",)
        for recipe in asked.recipes
    }


def subjects_of(asked: Asked, here: Installation, stack: ExitStack) -> tuple[Subject, ...]:
    """What is measured, ready; endpoints that were started for it end with `stack`."""
    if asked.url and (asked.recipes or asked.builds):
        raise UsageError("cannot measure recipes at --url: name the model with --model")
    if asked.builds and not asked.recipes:
        raise UsageError("cannot measure builds without a recipe", hint="nemotron-ops bench tiny --build A --build B")
    if asked.url:
        return (_remote(asked, here),)
    if not asked.recipes:
        return _running(asked, here)
    found: list[Subject] = []
    for build in asked.builds or ("",):
        for recipes in together(asked.recipes):
            remark(here.report, f"starting {', '.join(recipes)}" + (f" with build {build}" if build else ""))
            endpoint = stack.enter_context(started(recipes, here, build=build))
            found += _started(endpoint, recipes, build, here)
    return tuple(found)


def together(recipes: Sequence[str]) -> list[tuple[str, ...]]:
    """Recipes by endpoint: one for all, unless two are quants of one recipe, which one endpoint cannot serve."""
    names = [r.partition(":")[0] for r in recipes]
    return [tuple(recipes)] if len(set(names)) == len(names) else [(r,) for r in recipes]


def _started(endpoint: Started, recipes: Sequence[str], build: str, here: Installation) -> list[Subject]:
    """The models of an endpoint, labelled by the words that named them."""
    instances = {i.model: i for i in reversed(endpoint.composed.config.instances)}  # the first of all replicas
    return [
        Subject(
            label=f"{word} {build}".strip(),
            target=Target(url=endpoint.url, model=plan.name),
            made_by=made_by(instances[plan.name], here),
        )
        for word, plan in zip(recipes, endpoint.composed.plans, strict=True)
    ]


def measure_all(
    subjects: Sequence[Subject], asked: Asked, here: Installation, meter: Meter, alone: Mapping[str, Speeds]
) -> tuple[Run, ...]:
    """All repeats of a load on all subjects, then the next load.

    `meter` counts the energy of each repeat; `alone` has llama-bench's speeds by subject's label.
    """
    subjects = [replace(s, made_by={**s.made_by, "power": meter.about}) for s in subjects]
    at_s = time.time()
    taken = [r.id for r in runs.read(here.layout)]
    ids: list[str] = []
    for subject in subjects:
        ids.append(runs.new_id(subject.label, at_s, [*taken, *ids]))
    tokenizers = [calibrate(s.target) for s in subjects]
    results: dict[str, list[Result]] = {run: [] for run in ids}
    for load in asked.loads:
        measured: list[list[Measured]] = [[] for _ in subjects]
        for repeat in range(asked.repeats):
            for i, subject in enumerate(subjects):
                what = f"{subject.label} · {load.name} · {repeat + 1}/{asked.repeats}"
                once = measure(
                    subject.target, load, tokenizer=tokenizers[i], salt=f"{ids[i]} {load.name} {repeat}",
                    report=here.report, what=what, meter=meter,
                )  # fmt: skip
                measured[i].append(once)
        for i, subject in enumerate(subjects):
            result = result_of(ids[i], subject, load, measured[i], asked.limit)
            more = alone.get(subject.label, {}).get(load.name, {})
            result = replace(result, summary={**result.summary, **more})
            runs.append(here.layout, result)
            results[ids[i]].append(result)
    return tuple(Run(id=run, results=tuple(found)) for run, found in results.items())


def result_of(run: str, subject: Subject, load: Load, measured: Sequence[Measured], limit: Limit) -> Result:
    """The kept form of the repeats of one load."""
    together = [s for m in measured for s in m.samples]
    return Result(
        run=run,
        at_s=time.time(),
        label=subject.label,
        load=asdict(load),
        load_name=load.name,
        limit=limit.as_json(),
        summary=summarise(together, sum(m.wall_s for m in measured), limit, all_of([m.energy for m in measured])),
        repeats=tuple(summarise(m.samples, m.wall_s, limit, m.energy) for m in measured),
        made_by=subject.made_by,
    )


def _remote(asked: Asked, here: Installation) -> Subject:
    model = asked.model or _only_model(asked.url, asked.api_key)
    target = Target(url=asked.url, model=model, api_key=asked.api_key)
    made: dict[str, Any] = {"client": machine_of(here), "model": {"name": model}, "versions": versions()}
    made |= remote.origin(asked.at, model, here, config=asked.ssh_config) if asked.at else {"url": asked.url}
    return Subject(label=f"{model} at {asked.at or asked.url}", target=target, made_by=made)


def _running(asked: Asked, here: Installation) -> tuple[Subject, ...]:
    """The models of this installation's running supervisor, or the one that `--model` names."""
    from nemotron_ops.supervisor.control import client

    try:
        status = client.request(here.layout, "status")
    except ControlError as exc:
        hint = "name a recipe: nemotron-ops bench tiny; or an endpoint: --url http://HOST:8001/v1"
        raise UsageError("cannot measure: no recipe is named, and no supervisor is running", hint=hint) from exc
    url = status["endpoint"]["url"]
    names = [m["name"] for m in status["models"] if not asked.model or asked.model in m["names"]]
    if not names:
        raise UsageError(f"cannot measure {asked.model or 'anything'}: the running supervisor does not serve it")
    builds = {i["model"]: i["build"] for i in status["instances"]}
    return tuple(
        Subject(
            label=name,
            target=Target(url=url, model=name, api_key=asked.api_key),
            made_by={
                "machine": machine_of(here), "build": build_of(builds.get(name, ""), here), "model": {"name": name},
                "versions": versions(),
            },
        )
        for name in names
    )  # fmt: skip


def _only_model(url: str, api_key: str) -> str:
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=headers, trust_env=False, timeout=10.0)
        answer.raise_for_status()
        names = [str(m["id"]) for m in answer.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"cannot list the models of {url}: {exc}", hint="name one with --model") from exc
    if len(names) != 1:
        raise UsageError(f"cannot choose a model of {url}: it has {len(names)}", hint="name one with --model")
    return names[0]
