"""A deploy of one-line steps to a target on this machine, and a balancer that only records its calls."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemotron_ops.deploy.remote.prepare import Hooks, Job, PreparedTarget
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.facts import site_for
from nemotron_ops.deploy.steps.probe import parse_facts
from nemotron_ops.deploy.steps.release import Artifact, DeployPlan, RemoteStep, Request
from nemotron_ops.errors import DeployError
from nemotron_ops.progress import Report
from nemotron_ops.service.spec import Scope


@dataclass(kw_only=True)
class FakeBalancer:
    """A balancer that only records which targets it was told to take out and to put back."""

    calls: list[str] = field(default_factory=list)
    out: set[str] = field(default_factory=set)
    most_out: int = 0
    refuses: bool = False

    def take_out(self, target: str, report: Report) -> None:
        self.calls.append(f"out {target}")
        self.out.add(target)
        self.most_out = max(self.most_out, len(self.out))
        if self.refuses:
            raise DeployError("cannot talk to the balancer")

    def put_back(self, target: str) -> None:
        self.calls.append(f"back {target}")
        self.out.discard(target)

    @property
    def hooks(self) -> Hooks:
        return Hooks(before_switch=self.take_out, after_switch=self.put_back, lock=threading.Lock())


def step(name: str, home: Path, script: str = "") -> RemoteStep:
    """A step that records its name on the target, and runs `script`."""
    return RemoteStep(name=name, about=name, script=f"echo {name} >> {home}/steps\n{script}\n")


def prepared_target(
    home: Path, *, target: str = "gpu1", send: tuple[Artifact, ...] = (), **scripts: str
) -> PreparedTarget:
    """A target with a plan of one-line steps; `scripts` are added to the steps of these names."""
    facts = parse_facts(f"user=me\nhome={home}\n")
    first = replace(step("first", home, scripts.get("first", "")), send=send)
    plan = DeployPlan(
        release="r1",
        before_switch=(first,),
        switch=(step("activate", home, scripts.get("activate", "")), step("verify", home, scripts.get("verify", ""))),
        finish=step("finish", home, scripts.get("finish", "")),
        withdraw=step("withdraw", home),
        back=step("back", home),
    )
    site = site_for(Scope.USER, home=str(home))
    return PreparedTarget(connection=Connection(target=target), facts=facts, site=site, plan=plan, files={})


def job_for(balancer: FakeBalancer) -> Job:
    request = Request(scope=Scope.USER, recipes=("tiny",))
    return Job(request=request, cache=Path("/nowhere"), who="ann", now="noon", hooks=balancer.hooks)
