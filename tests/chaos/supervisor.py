"""A chaos run: kills, freezes and changes everything at random under client load, then looks for losses.

    python -m tests.chaos.supervisor --seconds 180 [--seed N] [--bin BUILD/bin]

Clients send a request whose answer is known word for word, whole and streamed. An answer is `right`, or it `failed
honestly` (an HTTP error, an error event, a cut connection), or it is `wrong`: other words, or an end that looks regular
and comes too early. Wrong answers, and anything left behind at the end, fail the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil

from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.engine.deaths import in_words
from nemotron_ops.errors import ControlError
from nemotron_ops.installation import Installation
from nemotron_ops.models.synthetic import ensure
from nemotron_ops.paths import user_layout
from nemotron_ops.policy import Restart
from nemotron_ops.supervisor.spec import InstanceSpec
from tests.stages.serving import HEALTH, SUM, Serving

RESTART = Restart(max_restarts=10_000, window_s=600, backoff_initial_s=0.1, backoff_max_s=0.5, stable_s=600)
RIGHT = "2 + 2 = 4."
SETTLE_S = 120.0


@dataclass
class Report:
    """Acts and answers of one run, by name, and every loss."""

    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.wrong and not self.left_behind and self.answers["right"] > 0

    def text(self) -> str:
        lines = [f"{self.seconds:.0f} s"]
        lines += [f"  {what:42}{n:6}" for what, n in sorted(self.done.items())]
        lines += [f"  answers {what:34}{n:6}" for what, n in sorted(self.answers.items())]
        lines += [f"  answers {'wrong':34}{len(self.wrong):6}", f"  left behind{len(self.left_behind):37}"]
        return "\n".join([*lines, *(f"  ! {w}" for w in (*self.wrong[:5], *self.left_behind))])


class Clients(threading.Thread):
    """One client that sends requests until stopped."""

    def __init__(self, serving: Serving, report: Report, stop: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self.serving, self.report, self.stop, self.random = serving, report, stop, random.Random(seed)

    def run(self) -> None:
        while not self.stop.is_set():
            streamed = self.random.random() < 0.5
            try:
                said, error = self.streamed() if streamed else self.whole()
            except (httpx.HTTPError, OSError):
                self.report.answers["failed honestly: connection"] += 1
                continue
            if error:
                self.report.answers[f"failed honestly: {error}"] += 1
            elif said == RIGHT:
                self.report.answers["right"] += 1
            elif continued(said):
                self.report.answers["right, continued elsewhere"] += 1
            else:
                self.report.wrong.append(f"{'streamed' if streamed else 'whole'}: {said!r}")
            self.stop.wait(0.03)

    def body(self) -> dict[str, object]:
        model = self.random.choice(["a", "b"])
        return {"model": model, "messages": SUM, "temperature": 0}

    def whole(self) -> tuple[str, str]:
        """The answer and an empty string, or an empty string and the error."""
        answer = httpx.post(self.serving.url, json=self.body(), timeout=60, trust_env=False)
        if answer.status_code != 200:
            return "", f"HTTP {answer.status_code}"
        return str(answer.json()["choices"][0]["message"]["content"]), ""

    def streamed(self) -> tuple[str, str]:
        said, ended = "", False
        body = {**self.body(), "stream": True}
        with httpx.stream("POST", self.serving.url, json=body, timeout=60, trust_env=False) as answer:
            if answer.status_code != 200:
                return "", f"HTTP {answer.status_code}"
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    ended = True
                elif line.startswith("data: {"):
                    value = json.loads(line[6:])
                    if "error" in value:
                        return "", "error event"
                    choices = value["choices"]
                    said += (choices[0]["delta"].get("content") or "") if choices else ""
        return said if ended else f"{said} (no [DONE], no error)", ""


def continued(said: str) -> bool:
    """Whether `said` is a beginning of the answer followed by an end of it.

    A stream whose engine was killed is continued by another one. The tiny model knows its sentence token by token, and
    the text so far may be split into other tokens than before; then it repeats some words, which a real model does not.
    """
    cuts = range(1, len(RIGHT))
    return any(said == RIGHT[:begun] + RIGHT[rest:] for begun in cuts for rest in range(len(RIGHT) - 1))


class Chaos:
    """The acts, by name; one is chosen at random each time."""

    def __init__(self, serving: Serving, report: Report, seed: int) -> None:
        self.serving, self.report, self.random = serving, report, random.Random(seed)
        self.size = 4096
        self.acts = {
            "engine killed": self.kill_engine,
            "engine frozen": self.freeze_engine,
            "supervisor killed": self.kill_supervisor,
            "gateway killed": self.kill_gateway,
            "reloaded unchanged": self.reload,
            "reloaded with a change": self.change,
            "reloaded with nonsense": self.nonsense,
            "restarted by hand": self.restart,
            "upgraded in place": self.execute,
        }

    def one(self) -> None:
        name = self.random.choice(list(self.acts))
        try:
            self.acts[name]()
        except (ControlError, psutil.Error, ProcessLookupError):
            self.report.done[f"{name} (refused)"] += 1
        else:
            self.report.done[name] += 1

    def configure(self) -> None:
        self.serving.configure(self.instance("a-0"), self.instance("a-1"), self.instance("b-0"))

    def instance(self, name: str) -> InstanceSpec:
        health = replace(HEALTH, wedge_s=4.0, probe_timeout_s=1.0, drain_s=10.0, stop_s=1.0)
        return self.serving.real(name, ctx_size=self.size, restart=RESTART, health=health)

    def kill_engine(self) -> None:
        os.kill(self.engine(), signal.SIGKILL)

    def freeze_engine(self) -> None:
        os.kill(self.engine(), signal.SIGSTOP)

    def kill_supervisor(self) -> None:
        self.serving.kill()
        time.sleep(self.random.random())
        self.serving.up()

    def kill_gateway(self) -> None:
        pid = self.serving.ask("status")["gateway"]["pid"]
        if pid is None:
            raise ControlError("cannot kill the gateway: it is just starting")
        os.kill(pid, signal.SIGKILL)

    def reload(self) -> None:
        self.serving.ask("reload")

    def change(self) -> None:
        self.size = 4096 if self.size != 4096 else 2048
        self.configure()
        self.serving.ask("reload")

    def nonsense(self) -> None:
        self.serving.configure(bad="nonsense")
        try:
            self.serving.ask("reload")
        except ControlError:
            return
        finally:
            self.configure()
        raise AssertionError("nonsense was accepted")

    def restart(self) -> None:
        self.serving.ask("restart", names=["a-0"])

    def execute(self) -> None:
        before = self.serving.events("supervisor-started")[0]["time_s"]
        self.serving.ask("reload", exec=True)
        self.serving.until(lambda: self.serving.events("supervisor-started")[0]["time_s"] > before)

    def engine(self) -> int:
        pids = [i["pid"] for i in self.serving.instances().values() if i["pid"] and i["state"] == "ready"]
        if not pids:
            raise ControlError("cannot choose an engine: none is ready")
        return int(self.random.choice(pids))


def run(serving: Serving, *, seconds: float, seed: int, clients: int = 3) -> Report:
    """The whole run; `report.good` says whether nothing was lost."""
    report, stop = Report(), threading.Event()
    chaos = Chaos(serving, report, seed)
    chaos.configure()
    serving.up()
    settle(serving)
    threads = [Clients(serving, report, stop, seed + n) for n in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while time.monotonic() - began < seconds:
        chaos.one()
        stop.wait(chaos.random.uniform(0.3, 2.0))
    stop.set()
    for thread in threads:
        thread.join(120)
    report.seconds = time.monotonic() - began
    settle(serving)
    look(serving, report)
    return report


def settle(serving: Serving) -> None:
    """Waits until the supervisor has killed the last frozen process and all instances are ready."""
    serving.until(lambda: not frozen(serving), within_s=SETTLE_S)
    serving.until(lambda: serving.ask("status")["ready"], within_s=SETTLE_S)
    serving.until(lambda: answered(serving, "a") and answered(serving, "b"))


def frozen(serving: Serving) -> list[int]:
    """Pids of stopped processes, which the supervisor has not killed yet."""
    found = []
    for process in serving.running():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process.pid)
    return found


def answered(serving: Serving, model: str) -> bool:
    try:
        return bool(serving.chat(model))
    except (AssertionError, httpx.HTTPError):
        return False


def look(serving: Serving, report: Report) -> None:
    """Notes everything that is left over or damaged, before and after the end of the supervisor."""
    status = serving.ask("status")
    instances = {i["pid"] for i in status["instances"]}
    names = sorted(i["instance"] for i in status["instances"])
    engines = {p.pid for p in serving.running() if p.name() == "llama-server"}
    left = report.left_behind
    if names != ["a-0", "a-1", "b-0"]:
        left.append(f"instances {names}")
    if engines != instances:
        left.append(f"engines {sorted(engines)}, instances {sorted(instances)}")
    sockets = {p.name for p in serving.layout.runtime.glob("*.sock")} - {"control.sock"}
    if len(sockets) != len(instances):
        left.append(f"sockets {sorted(sockets)}")
    supervisor = psutil.Process(status["pid"])
    if supervisor.num_fds() > 80 or supervisor.num_threads() > 50:
        left.append(f"supervisor with {supervisor.num_fds()} descriptors, {supervisor.num_threads()} threads")
    for path in serving.layout.state.rglob("*.json"):
        json.loads(path.read_text())
    code = serving.down()
    if code != 0:
        left.append(f"supervisor {in_words(code)}")
    deadline = time.monotonic() + 30
    while (rest := serving.running()) and time.monotonic() < deadline:
        time.sleep(0.1)
    left += [f"process {p.pid} {p.name()}" for p in rest]
    left += [f"file {p.name}" for p in serving.layout.runtime.iterdir()]
    left += [f"record {p.name}" for p in (serving.layout.state / "instances").iterdir()]


def built() -> Path:
    """The folder with llama-server in the product's own store."""
    env = dict(os.environ)
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), activate=False)
    installation = Installation(layout=user_layout(env, uid=os.getuid()), env=env)
    return ensure_build(request, installation).path / "bin"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, help="folder with llama-server; built if not given")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    binary = (args.bin or built()) / "llama-server"
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving(Path(folder), binary, ensure("moe", Path(folder) / "models"))
        try:
            report = run(serving, seconds=args.seconds, seed=args.seed)
        finally:
            serving.clear()
    print(report.text())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
