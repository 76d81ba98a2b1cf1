"""A supervisor as its own process, for tests: `supervised.py OPTIONS.json`. Its configuration is CONFIG.json."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError, RecipeError
from nemotron_ops.paths import user_layout
from nemotron_ops.policy import Health
from nemotron_ops.supervisor import spec
from nemotron_ops.supervisor.probe import Probe
from nemotron_ops.supervisor.run import supervise
from nemotron_ops.supervisor.snapshot import ModelView
from nemotron_ops.supervisor.supervisor import GATEWAY_RULES, Hooks, Options
from nemotron_ops.supervisor.watchdog import Timing


def load(path: Path) -> spec.Config:
    value: dict[str, Any] = json.loads(path.read_text())
    if "bad" in value:
        raise RecipeError(str(value["bad"]))
    instances = tuple(spec.from_json(i) for i in value["instances"])
    names = sorted({i.model for i in instances})
    on_demand = {i.model for i in instances if i.lifecycle.on_demand}
    models = tuple(ModelView(name=n, names=(n,), on_demand=n in on_demand) for n in names)
    return spec.Config(models=models, instances=instances, capacity_bytes=value.get("capacity_bytes", {}))


def beat(file: Path) -> None:
    """One more heartbeat."""
    with file.open("a") as f:
        f.write(".")


def main() -> int:
    settings = json.loads(Path(sys.argv[1]).read_text())
    layout = user_layout({"NEMOTRON_OPS_HOME": settings["home"]}, uid=os.getuid())
    options = Options(
        gateway_argv=tuple(settings["gateway"]),
        port=settings["port"],
        exit_on_failed=settings.get("exit_on_failed", False),
        gateway_probe=Probe(**settings.get("gateway_probe", {})),
        gateway_rules=replace(GATEWAY_RULES, health=Health(drain_s=60.0, stop_s=settings.get("gateway_stop_s", 5.0))),
        timing=Timing(**settings.get("timing", {})),
    )
    hooks = Hooks(
        free_bytes=(lambda: json.loads(Path(settings["free_file"]).read_text())) if "free_file" in settings else None,
        on_tick=(lambda: beat(Path(settings["beats"]))) if "beats" in settings else (lambda: None),
    )
    try:
        config = Path(settings["config"])
        return supervise(options, layout=layout, load_config=lambda: load(config), env=os.environ, hooks=hooks)
    except NemotronOpsError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
