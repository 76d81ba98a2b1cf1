"""Keeps what is to be served in `state/wish.json`, for the supervisor and its next start. Disk.

    {"version": 1, "asked": {"models": [...], "quants": {...}}, "models": [...]}

`asked` is what `serve` was started with, `models` what is served since the last change. A start with the same words
goes on with `models`; a start with other words sets the wish anew. Only the supervisor writes the file, one change at a
time, and a change counts once the file is renamed: a kill at any line leaves the wish before it or the one after it.
A copy, `wish.last.json`, takes the place of a file that was damaged since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops.errors import HostError, NemotronOpsError, UsageError
from nemotron_ops.files import read_json, sync_dir, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.operations import wish_changes
from nemotron_ops.operations.compose import compose
from nemotron_ops.operations.wish import Composed, ModelWish, Wish
from nemotron_ops.operations.wish_changes import same_request
from nemotron_ops.paths import Layout
from nemotron_ops.progress import remark
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.supervisor.spec import Config
from nemotron_ops.supervisor.wishes import RESUME, Proposal

VERSION = 1
Composing = Callable[[Wish, Installation], Composed]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The content of a wish file."""

    asked: Mapping[str, Any]
    models: tuple[ModelWish, ...]


def path_of(layout: Layout) -> Path:
    """The wish file."""
    return layout.state / "wish.json"


def last_of(layout: Layout) -> Path:
    """Its copy."""
    return layout.state / "wish.last.json"


def read(layout: Layout) -> tuple[Kept | None, str]:
    """The kept wish and "", or its copy and what is wrong with the file; None where there is neither."""
    try:
        return _read(path_of(layout)), ""
    except NemotronOpsError as exc:
        problem = exc.message
    try:
        return _read(last_of(layout)), problem
    except NemotronOpsError:
        return None, problem


def continued(wish: Wish, here: Installation) -> Wish:
    """`wish` with the models that an earlier start with the same words is serving by now.

    Remarks tell what differs from the words, and what is wrong with a damaged file.
    """
    kept, problem = read(here.layout)
    if problem:
        instead = "going on with the last good one" if kept else "going on with the command line"
        remark(here.report, f"{problem}; {instead}", warning=True)
    if kept is None or (wish.fresh and RESUME not in here.env):  # `reload --exec` repeats the command line
        return wish
    lost = [m.name or m.target for m in kept.models if not any(_alike(m, w) for w in wish.models)]
    if kept.asked != asked_json(wish):
        changed_since = wish_changes.to_json(kept.models) != kept.asked.get("models")
        if changed_since and lost:
            remark(here.report, f"another command line than last time: no longer served: {', '.join(lost)}")
        return wish
    pairs = [(k, m) for k in kept.models for m in wish.models if _alike(k, m)]
    other = [k.name or k.target for k, m in pairs if not same_request(k, m)]
    gone = [m.target for m in wish.models if not any(_alike(m, k) for k in kept.models)]
    if lost:
        remark(here.report, f"also served, by `add` since: {', '.join(lost)}; `--fresh` forgets that")
    if gone:
        remark(here.report, f"not served, by `remove` since: {', '.join(gone)}; `--fresh` forgets that")
    if other:
        remark(here.report, f"with other options, by `change` since: {', '.join(other)}; `--fresh` forgets that")
    return replace(wish, models=kept.models)


def asked_json(wish: Wish) -> dict[str, Any]:
    """What tells two command lines apart: models, their options and quants; not where to listen."""
    models = tuple(replace(m, name="") for m in wish.models)
    return {"models": wish_changes.to_json(models), "quants": dict(sorted(wish.quants.items()))}


class WishFile:
    """The wish of a running supervisor; the file is the truth, read for each change. `supervisor.wishes.Wishes`."""

    def __init__(
        self, asked: Wish, wish: Wish, composed: Composed, here: Installation, *, composing: Composing = compose
    ) -> None:
        self._here, self._asked, self._composing = here, asked_json(asked), composing
        found = {p.name: p.recipe.model.quant for p in composed.plans}
        self._wish = replace(wish, models=named(wish.models, composed.plans), found=found)

    def begin(self) -> None:
        """Keep the wish of this start; a damaged file is moved aside. Needs the lock of the state folder. HostError."""
        path = path_of(self._here.layout)
        if read(self._here.layout)[1]:
            with _writing(path):
                os.replace(path, path.with_name(f"{path.name}.damaged"))
        models = wish_changes.to_json(self._wish.models)
        self.prepare(models)
        self.keep(models)

    def show(self) -> list[dict[str, Any]]:
        """The models that are to be served."""
        return wish_changes.to_json(self._present().models)

    def propose(self, change: Mapping[str, Any]) -> Proposal:
        """What `change` makes of the wish; nothing is built, fetched or written.

        Raises UsageError for a change that makes no sense, and the errors of `compose`.
        """
        present = self._present()
        models = wish_changes.changed(present.models, change)
        composed = self._composing(replace(present, models=models, may_build=False, may_fetch=False), self._here)
        return Proposal(config=composed.config, models=wish_changes.to_json(named(models, composed.plans)))

    def reload(self) -> Config:
        """The configuration of the wish, as recipes and settings are now. Raises the errors of `compose`."""
        return self._composing(self._present(), self._here).config

    def prepare(self, models: list[dict[str, Any]]) -> None:
        """Write the next wish beside the present one, so that a full disk shows before anything runs. HostError."""
        with _writing(self._next):
            write_json(self._next, self._content(models), mode=0o600)

    def keep(self, models: list[dict[str, Any]]) -> None:
        """Make `models`, which are prepared, the wish. Raises HostError, with the present one kept."""
        path, copy = path_of(self._here.layout), last_of(self._here.layout)
        with _writing(path):
            os.replace(self._next, path)
            sync_dir(path.parent)
        self._wish = replace(self._wish, models=wish_changes.from_json(models))
        try:
            write_json(copy, self._content(models), mode=0o600)
        except OSError as exc:
            remark(self._here.report, f"cannot write {copy}: {exc.strerror or exc}", warning=True)

    def _present(self) -> Wish:
        kept, problem = read(self._here.layout)
        if problem:
            remark(self._here.report, f"{problem}; going on with the last good one", warning=True)
        return self._wish if kept is None or problem else replace(self._wish, models=kept.models)

    @property
    def _next(self) -> Path:
        return path_of(self._here.layout).with_name("wish.next.json")

    def _content(self, models: list[dict[str, Any]]) -> dict[str, Any]:
        return {"version": VERSION, "asked": self._asked, "models": models}


def named(models: Sequence[ModelWish], plans: Sequence[Plan]) -> tuple[ModelWish, ...]:
    """The models with the names of their plans, which stand in the same order."""
    return tuple(replace(m, name=p.name) for m, p in zip(models, plans, strict=True))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an OSError into a HostError."""
    try:
        yield
    except OSError as exc:
        raise HostError(f"cannot write {path}: {exc.strerror or exc}", hint="the wish is as it was before") from exc


def _read(path: Path) -> Kept | None:
    try:
        value = read_json(path)
    except OSError as exc:
        raise HostError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if value is None:
        return None
    try:
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise UsageError(f"expected an object of version {VERSION}")
        asked = value.get("asked")
        return Kept(asked=asked if isinstance(asked, dict) else {}, models=wish_changes.from_json(value.get("models")))
    except UsageError as exc:
        raise HostError(f"cannot read {path}: {exc.message}") from exc


def _alike(one: ModelWish, other: ModelWish) -> bool:
    return one.target == other.target
