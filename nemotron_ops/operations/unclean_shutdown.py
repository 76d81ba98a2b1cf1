"""Proves models again after the machine went down while it served. Disk.

A power cut may lose bytes that were written but had not reached the disk, even in files of the right size and date,
which is all that a start-up checks otherwise. So `serve` notes the boot of the machine in which it serves, and removes
the note at an orderly end. A note from an earlier boot means that the machine went down in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nemotron_ops.errors import ModelError, NemotronOpsError
from nemotron_ops.files import read_json, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.processes.process import boot_id
from nemotron_ops.progress import Report, Step, remark
from nemotron_ops.recipes.resolve import Plan

NOTE = "serving.json"


@contextmanager
def noted_while_serving(plans: Sequence[Plan], here: Installation, *, on_proof: Report) -> Iterator[None]:
    """The time in which `plans` are served. Raises ModelError if the machine went down last time and a file is bad.

    Proving takes as long as reading the models does; `on_proof` gets its steps besides the installation's report.
    """
    note = here.layout.state / NOTE
    if _went_down(note):
        remark(here.report, "the machine went down while it served: proving the models' bytes again")
        _prove(plans, here, on_proof)
    with suppress(OSError):  # a full disk: the next start proves nothing that this one would have
        write_json(note, {"boot": boot_id()})
    yield
    with suppress(OSError):
        note.unlink(missing_ok=True)


def _went_down(note: Path) -> bool:
    """Whether the note of the last `serve` is from another boot, or damaged as by a power cut."""
    try:
        left = read_json(note)
    except (NemotronOpsError, OSError):
        return True
    return left is not None and not (isinstance(left, dict) and left.get("boot") == boot_id())


def _prove(plans: Sequence[Plan], here: Installation, on_proof: Report) -> None:
    from nemotron_ops.models import store
    from nemotron_ops.models.ref import Ref

    def report(step: Step) -> None:
        here.report(step)
        on_proof(step)

    for plan in plans:
        model = plan.recipe.model
        found = store.find(here.layout, Ref(repo=model.repo, quant=model.quant)) if model.repo else None
        if found and (problems := store.verify(found, report=report)):
            raise ModelError(
                f"cannot serve {plan.name}: {problems[0].path}: {problems[0].what}",
                hint=f"`nemotron-ops models rm {found.id}`, then `nemotron-ops fetch {plan.name}`",
            )
