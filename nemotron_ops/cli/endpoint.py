"""What `serve` tells people: load progress, then where the endpoint is and how to ask it. Terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from nemotron_ops.progress import Step
from nemotron_ops.supervisor.snapshot import InstanceView, Snapshot, State

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.cli.compose import Composed, Endpoint
    from nemotron_ops.paths import Layout

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


def gateway_argv(endpoint: Endpoint, layout: Layout) -> tuple[str, ...]:
    """The gateway's command line; the supervisor adds the listening socket and its control socket."""
    told = endpoint.settings
    values = [
        ("--api-keys-file", endpoint.api_key_file or str(layout.config / "keys.json")),
        ("--usage-file", str(layout.state / "usage.json")),
        ("--access-log", str(layout.logs / "access.log") if told.access_log else ""),
        ("--tls-cert", told.tls_cert),
        ("--tls-key", told.tls_key),
        *(("--allowed-host", host) for host in told.allowed_hosts),
        *(("--allowed-origin", origin) for origin in told.allowed_origins),
    ]
    argv = [sys.executable, "-m", "nemotron_ops.gateway", *(w for flag, v in values if v for w in (flag, v))]
    argv += [] if endpoint.api_key_file else ["--keys-optional"]
    return tuple(argv if told.native else [*argv, "--no-native"])


def snippet(endpoint: Endpoint, alias: str) -> str:
    """A curl line and an `openai` snippet to paste."""
    locked = bool(endpoint.api_key_file)
    auth = ' -H "Authorization: Bearer $NEMOTRON_OPS_API_KEY"' if locked else ""
    key = "YOUR-KEY" if locked else "sk-no-key-required"
    return SNIPPET.format(url=endpoint.url, alias=alias, auth=auth, key=key)


def all_ready(snapshot: Snapshot, *, lazy: Collection[str] = ()) -> bool:
    """Whether every instance is ready; those of models in `lazy` may also wait, stopped, for their first request."""
    expected = [i for i in snapshot.instances if i.model not in lazy or i.state is not State.STOPPED]
    return bool(snapshot.instances) and not snapshot.stopping and all(i.state is State.READY for i in expected)


def lazy_models(composed: Composed) -> frozenset[str]:
    """The models that are started by their first request."""
    return frozenset(p.name for p in composed.plans if p.recipe.lifecycle.on_demand)


class Announcer:
    """Follows snapshots: a bar per load, a line per death, the snippet once everything wanted is ready."""

    def __init__(self, app: App, composed: Composed, *, as_json: bool = False) -> None:
        self.app, self.composed, self.as_json = app, composed, as_json
        self._states: dict[str, tuple[State, str]] = {}
        self.announced = False

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Say what changed since the last one."""
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
        for plan in plans:
            self.app.ui.data(snippet(endpoint, plan.alias))
