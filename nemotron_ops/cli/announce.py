"""Shows what `serve` does: load progress, deaths, then the endpoint and how to ask it. Terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_ops.operations.serving import all_ready, lazy_models
from nemotron_ops.progress import Step
from nemotron_ops.supervisor.snapshot import InstanceView, Snapshot, State

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.operations.wish import Composed, Endpoint

SNIPPET = """\
ready  {url}   model {alias}

  curl {url}/chat/completions -H 'Content-Type: application/json'{auth} \\
    -d '{{"model": "{alias}", "messages": [{{"role": "user", "content": "What is 2 + 2?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}", api_key="{key}")
  answer = client.chat.completions.create(
      model="{alias}", messages=[{{"role": "user", "content": "What is 2 + 2?"}}]
  )
  print(answer.choices[0].message.content)
"""


def snippet(endpoint: Endpoint, alias: str) -> str:
    """A curl line and an `openai` snippet to paste."""
    locked = bool(endpoint.api_key_file)
    auth = ' -H "Authorization: Bearer $NEMOTRON_OPS_API_KEY"' if locked else ""
    key = "YOUR-KEY" if locked else "sk-no-key-required"
    return SNIPPET.format(url=endpoint.url, alias=alias, auth=auth, key=key)


class Announcer:
    """Follows snapshots: a bar per load, a line per death, the snippet once everything wanted is ready."""

    def __init__(self, app: App, composed: Composed, *, as_json: bool = False) -> None:
        self.app, self.composed, self.as_json = app, composed, as_json
        self._states: dict[str, tuple[State, str]] = {}
        self.announced = False

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Show what changed since the last snapshot."""
        for instance in snapshot.instances:
            self._say_change(instance)
            if instance.state is State.STARTING and instance.load_progress is not None:
                step = Step(what=f"load {instance.name}", done=round(100 * instance.load_progress), total=100, unit="%")
                self.app.ui.report(step)
        if not self.announced and all_ready(snapshot, lazy=lazy_models(self.composed)):
            self.announced = True
            self._announce()

    def _say_change(self, instance: InstanceView) -> None:
        now = (instance.state, instance.reason)
        before = self._states.get(instance.name)
        self._states[instance.name] = now
        if now == before:
            return
        match instance.state:
            case State.STARTING:
                self.app.ui.say(f"{instance.name}: starting")
            case State.READY:
                self.app.ui.report(Step(what=f"load {instance.name}", done=100, total=100, unit="%"))
                self.app.ui.say(f"{instance.name}: ready (pid {instance.pid})")
            case State.BACKOFF | State.FAILED:
                self.app.ui.warn(f"{instance.name}: {instance.state}: {instance.reason}")
            case State.STOPPING | State.KILLING | State.STOPPED:
                if before:
                    self.app.ui.say(f"{instance.name}: {instance.state}")

    def _announce(self) -> None:
        endpoint, plans = self.composed.endpoint, self.composed.plans
        if self.as_json:
            self.app.ui.json({"endpoint": endpoint.url, "models": [p.alias for p in plans]})
            return
        if not plans:
            self.app.ui.data(f"ready  {endpoint.url}   no model yet; add one with: nemotron-ops add 30b")
        for plan in plans:
            self.app.ui.data(snippet(endpoint, plan.alias))
