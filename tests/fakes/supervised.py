"""A supervisor as its own process, for tests: `supervised.py OPTIONS.json`. Its configuration is CONFIG.json."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError, RecipeError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.wish import Composed, Endpoint, ModelWish, Wish
from nemotron_ops.operations.wish_file import WishFile, continued
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.policy import Health
from nemotron_ops.progress import Step
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.recipes.schema import Model, Recipe
from nemotron_ops.supervisor import spec
from nemotron_ops.supervisor.probe import Probe
from nemotron_ops.supervisor.run import supervise
from nemotron_ops.supervisor.snapshot import ModelView
from nemotron_ops.supervisor.supervisor import GATEWAY_RULES, Hooks, Options
from nemotron_ops.supervisor.watchdog import Timing
from nemotron_ops.supervisor.wishes import NoWishes, Wishes


def load(path: Path) -> spec.Config:
    value: dict[str, Any] = json.loads(path.read_text())
    if "bad" in value:
        raise RecipeError(str(value["bad"]))
    instances = tuple(spec.from_json(i) for i in value["instances"])
    names = sorted({i.model for i in instances})
    on_demand = {i.model for i in instances if i.lifecycle.on_demand}
    models = tuple(ModelView(name=n, names=(n,), on_demand=n in on_demand) for n in names)
    return spec.Config(models=models, instances=instances, capacity_bytes=value.get("capacity_bytes", {}))


def composed(wish: Wish, catalog: Path) -> Composed:
    """The instances of the wished models: the catalog's, with the models' extra words on their command lines."""
    offered = load(catalog)
    plans, instances = [], []
    for model in wish.models:
        own = [i for i in offered.instances if i.model == model.target]
        if not own:
            raise RecipeError(f"cannot load recipe {model.target}: there is no such recipe")
        instances += [replace(i, argv=(*i.argv, *model.extra)) for i in own]
        recipe = Recipe(name=model.target, model=Model(path=f"/{model.target}.gguf"))
        plans.append(Plan(recipe=recipe, profile="", alias=model.target, settings={}))
    models = tuple(m for m in offered.models if m.name in {p.name for p in plans})
    config = replace(offered, models=models, instances=tuple(instances))
    return Composed(endpoint=Endpoint(host="127.0.0.1", port=0), plans=tuple(plans), config=config)


def wish_file(settings: dict[str, Any], layout: Layout) -> WishFile:
    """The wish of `settings["asked"]` over the catalog in CONFIG.json, with the changes of an earlier start."""
    catalog, here = Path(settings["config"]), Installation(layout=layout, env=os.environ, report=say)
    words = Wish(models=tuple(ModelWish(target=name) for name in settings["asked"]))
    wish = continued(words, here)
    return WishFile(words, wish, composed(wish, catalog), here, composing=lambda wish, here: composed(wish, catalog))


def say(step: Step) -> None:
    print(step.note, file=sys.stderr, flush=True)


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
    wishes: Wishes = wish_file(settings, layout) if "asked" in settings else NoWishes()
    hooks = Hooks(
        wishes=wishes,
        free_bytes=(lambda: json.loads(Path(settings["free_file"]).read_text())) if "free_file" in settings else None,
        on_tick=(lambda: beat(Path(settings["beats"]))) if "beats" in settings else (lambda: None),
    )
    try:
        config = Path(settings["config"])
        read = wishes.reload if isinstance(wishes, WishFile) else lambda: load(config)
        return supervise(options, layout=layout, load_config=read, env=os.environ, hooks=hooks)
    except NemotronOpsError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
