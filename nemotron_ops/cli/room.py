"""The memory of this machine while models are placed into it, one after the other. Disk; network for headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.errors import FitError
from nemotron_ops.recipes.resolve import Plan, Setting

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.memory.fit import Placement
    from nemotron_ops.models.gguf import Header


@dataclass(kw_only=True)
class Room:
    """What is left to give. `used_bytes` is what the models placed so far take, by device."""

    app: App
    backend: str
    used_bytes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def place(self, plan: Plan, model: Path, device: str, *, mmproj_bytes: int = 0) -> tuple[Plan, Mapping[str, int]]:
        """`plan` with what memory decides filled in, and the bytes it takes per device.

        Raises FitError if it cannot fit. An architecture whose memory nobody has worked out is not refused, only
        noted; llama-server's own fitting then has the word.
        """
        from nemotron_ops.memory.model_shape import UnknownArchitectureError
        from nemotron_ops.models.local import read_header

        if not model.exists():  # a dry run before the download
            self.notes.append(f"{plan.name}: memory is not planned yet, the model is not here; see `nemotron-ops plan`")
            return plan, {}
        try:
            found = self._placement(plan, read_header(model), device, mmproj_bytes)
        except UnknownArchitectureError as exc:
            self.notes.append(f"{plan.name}: {exc.message}; its memory is not planned")
            return plan, {}
        if not plan.recipe.lifecycle.on_demand:
            for name, taken in found.bytes_by_device.items():
                self.used_bytes[name] = self.used_bytes.get(name, 0) + taken
        if found.ctx_size != plan.value("ctx_size"):
            self.notes.append(f"{plan.name}: {found.why}")
        return plan.with_settings(_placed_settings(plan, found)), found.bytes_by_device

    def fitting_quant(self, plan: Plan, *, asked: bool) -> Plan:
        """`plan` with a quant that fits, judged by its header before the download.

        The recipe's own quant if it fits; else, unless it was `asked` for by hand, the best of the repository that
        does. Raises FitError if none does, ModelError if the hub cannot be read.
        """
        from nemotron_ops.models import store
        from nemotron_ops.models.ref import Ref

        model = plan.recipe.model
        if not model.repo or not model.quant or store.find(self.app.layout, Ref(repo=model.repo, quant=model.quant)):
            return plan
        from nemotron_ops.cli.plan import best_quant
        from nemotron_ops.memory.model_shape import UnknownArchitectureError
        from nemotron_ops.models.offers import offers

        ref = Ref(repo=model.repo)
        own = offers(ref, self.app.installation, revision=model.revision, quants=(model.quant,))[0]
        try:
            if own.header:
                self._placement(plan, own.header, "")
        except UnknownArchitectureError:
            return plan
        except FitError as exc:
            facts, given = self.app.machine, settings_by_hand(plan)
            other = model.quant if asked else best_quant(self.app, plan, facts, backend=self.backend, asked=given)
            if other == model.quant:
                raise
            self.notes.append(f"{plan.name}: serving {other} instead of {model.quant}: {exc.message}")
            return replace(plan, recipe=replace(plan.recipe, model=replace(model, quant=other)))
        return plan

    def _placement(self, plan: Plan, header: Header, device: str, mmproj_bytes: int = 0) -> Placement:
        from nemotron_ops.memory import fit
        from nemotron_ops.memory.machine import machine

        devices = (device,) if device else ()
        pools = machine(self.app.machine, backend=self.backend, devices=devices, used_bytes=self.used_bytes)
        return fit.choose(header, pools, plan.server, asked=settings_by_hand(plan), mmproj_bytes=mmproj_bytes)

    def capacity_bytes(self) -> Mapping[str, int]:
        """What all instances together may take, by device."""
        from nemotron_ops.memory.machine import machine

        pools = machine(self.app.machine, backend=self.backend)
        return {d.name: d.room_bytes for d in (pools.host, *pools.gpus)}


def settings_by_hand(plan: Plan) -> tuple[str, ...]:
    """The settings that somebody chose by hand: memory planning keeps them."""
    return tuple(k for k, s in plan.settings.items() if s.source != "built in" and not s.source.startswith("recipe "))


def _placed_settings(plan: Plan, found: Placement) -> dict[str, Setting]:
    """What the placement decides, as settings; those that already have the value keep their source."""
    decided = {
        "ctx_size": found.ctx_size,
        "n_gpu_layers": found.n_gpu_layers,
        "n_cpu_moe": found.n_cpu_moe or None,
        "tensor_split": found.tensor_split or None,
        "ctx_checkpoints": found.ctx_checkpoints,
        "cache_ram_mib": found.cache_ram_mib,
    }
    source = f"memory: {found.why}"
    return {k: Setting(value=v, source=source) for k, v in decided.items() if v is not None and v != plan.value(k)}
