"""The verbs of the control socket. asyncio.

ping                                         status
start|stop|restart|drain  {names}            stop without names ends the supervisor; {now} skips draining
reload  {strict, exec, detach}               rollback
logs    {name, lines}                        events  {count, follow}
want    {model}                              starts a model for which a request waits
wish    {change, dry_run, strict}            what is to be served; with `change` it is changed, without an outage
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from nemotron_ops import __version__, addresses
from nemotron_ops.errors import ControlError, NemotronOpsError
from nemotron_ops.proc import python_argv, run
from nemotron_ops.processes import logfiles
from nemotron_ops.supervisor import snapshot as snapshots
from nemotron_ops.supervisor.companion import Companion
from nemotron_ops.supervisor.control.server import Answer, Verb
from nemotron_ops.supervisor.fleet.rollout import Outcome
from nemotron_ops.supervisor.instance.keeper import Keeper
from nemotron_ops.supervisor.instance.state import Event
from nemotron_ops.supervisor.snapshot import ModelView, State
from nemotron_ops.supervisor.spec import Config
from nemotron_ops.supervisor.supervisor import Supervisor
from nemotron_ops.supervisor.wishes import Models

TAIL_SHOWN = 20
TAKEN_POLLS = 200
TAKEN_POLL_S = 0.005


class Verbs:
    """One method per verb."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._began = time.time()
        self._before: tuple[Config, Models] | None = None  # the configuration and wish that `rollback` restores
        self._background: set[asyncio.Task[None]] = set()

    def table(self) -> dict[str, Verb]:
        return {
            "ping": self.ping,
            "status": self.status,
            "snapshot": self.snapshot,
            "start": self._once_configured(self.start),
            "stop": self.stop,
            "restart": self._once_configured(self.restart),
            "drain": self._once_configured(self.drain),
            "reload": self.reload,
            "rollback": self.rollback,
            "logs": self.logs,
            "events": self.events,
            "want": self._once_configured(self.want),
            "wish": self._once_configured(self.wish),
        }

    def _once_configured(self, verb: Callable[[dict[str, Any]], Awaitable[Answer]]) -> Verb:
        """`verb`, after adoption and the first configuration."""

        async def wait(args: dict[str, Any]) -> Answer:
            await self._supervisor.configured.wait()
            return await verb(args)

        return wait

    async def ping(self, args: dict[str, Any]) -> Answer:
        return {"ok": True, "pid": os.getpid(), "version": __version__}

    async def snapshot(self, args: dict[str, Any]) -> Answer:
        """The present snapshot, as gateways follow it."""
        return {"snapshot": snapshots.to_json(self._supervisor.fleet.snapshot)}

    async def status(self, args: dict[str, Any]) -> Answer:
        supervisor, gateway = self._supervisor, self._supervisor.gateway
        instances = [self._instance(k) for k in supervisor.fleet.keepers.values()]
        wanted = [i for i in instances if i["wanted"]]
        return {
            "pid": os.getpid(),
            "version": __version__,
            "uptime_s": round(time.time() - self._began, 1),
            "endpoint": {
                "host": gateway.at.host,
                "port": gateway.at.port,
                "url": url(supervisor.options.scheme, gateway.at.host, gateway.at.port),
            },
            "gateway": _companion(gateway) | {"following": supervisor.control.following},
            "companions": {
                c.spec.id: _companion(c) | {"url": url(supervisor.options.scheme, c.at.host, c.at.port)}
                for c in supervisor.companions
            },
            "models": [_model(m) for m in supervisor.fleet.snapshot.models],
            "capacity_bytes": dict(supervisor.fleet.config.capacity_bytes),
            "wish": await self._wished(),
            "instances": instances,
            "ready": self._shown and all(i["state"] == "ready" for i in wanted) and gateway.record is not None,
            "failed": bool(wanted) and all(i["state"] == "failed" for i in wanted),
            "stopping": supervisor.fleet.stopping,
            "changing": supervisor.changing,
            "refused": supervisor.refused,
            "serial": supervisor.fleet.snapshot.serial,
        }

    @property
    def _shown(self) -> bool:
        """Whether the instances of the first configuration are known; there may be none of them."""
        return self._supervisor.fleet.snapshot.serial > 0

    async def start(self, args: dict[str, Any]) -> Answer:
        keepers = self._named(args)
        self._supervisor.fleet.hold([k.spec.name for k in keepers], True)
        for keeper in keepers:
            self._supervisor.fleet.start(keeper)
        await self._taken(keepers)
        return _done(keepers)

    async def stop(self, args: dict[str, Any]) -> Answer:
        """Stops the named instances for good, or all of them and the supervisor."""
        fleet, now = self._supervisor.fleet, bool(args.get("now"))
        if not args.get("names"):
            self._supervisor.end()
            if now:
                self._supervisor.fleet.force_stop()
            return {"ok": True, "pid": os.getpid(), "stopping": True}
        await self._supervisor.configured.wait()
        keepers = self._named(args)
        fleet.hold([k.spec.name for k in keepers], False)
        for keeper in keepers:
            fleet.stop(keeper, "stopped by hand")
            if now:
                keeper.tell(Event.FORCE)
        return _done(keepers)

    async def restart(self, args: dict[str, Any]) -> Answer:
        keepers = self._named(args)
        self._supervisor.fleet.hold([k.spec.name for k in keepers], True)
        for keeper in keepers:
            self._supervisor.fleet.restart(keeper)
        await self._taken(keepers)
        return _done(keepers)

    async def _taken(self, keepers: Sequence[Keeper]) -> None:
        """Wait until the keepers have read what was asked, so that no status shows the state before; 1 s at most."""
        for _ in range(TAKEN_POLLS):
            if not any(k.has_messages or k.id in self._supervisor.fleet.pending for k in keepers):
                return
            await asyncio.sleep(TAKEN_POLL_S)

    async def drain(self, args: dict[str, Any]) -> Answer:
        """Takes instances out of traffic while they stay loaded; `start` puts them back."""
        keepers = self._named(args)
        for keeper in keepers:
            keeper.check_drainable()
        for keeper in keepers:
            keeper.drain()
        return _done(keepers)

    async def reload(self, args: dict[str, Any]) -> Answer:
        """Answers once the configuration is applied, or has failed and the old one runs."""
        if args.get("dry_run"):
            changes = await self._supervisor.preview()
            outcome = Outcome(kept=changes.keep, added=changes.add, removed=changes.remove, replaced=changes.replace)
            return {"ok": True, "dry_run": True, **outcome.to_json()}
        if args.get("exec"):
            await asyncio.to_thread(check_program)
        before = await self._now()
        outcome = await self._supervisor.reload(strict=bool(args.get("strict")))
        self._before = before
        if args.get("exec"):
            asyncio.get_running_loop().call_later(0.1, self._supervisor.end_for_exec)
        return {"ok": not outcome.failed, "pid": os.getpid(), "executing": bool(args.get("exec")), **outcome.to_json()}

    async def rollback(self, args: dict[str, Any]) -> Answer:
        """Applies the configuration before the last reload."""
        if self._before is None:
            raise ControlError("cannot roll back: nothing was reloaded since this supervisor started")
        before, self._before = self._before, await self._now()
        outcome = await self._supervisor.go_back(*before)
        return {"ok": not outcome.failed, **outcome.to_json()}

    async def wish(self, args: dict[str, Any]) -> Answer:
        """The models that are to be served; with a change, once it runs, or has failed and everything is as before."""
        change = args.get("change")
        if change is None:
            return {"ok": True, "models": await self._wished()}
        if not isinstance(change, dict):
            raise ControlError("cannot read the request: change is not an object")
        if args.get("dry_run"):
            changes = await self._supervisor.preview_wish(change)
            outcome = Outcome(kept=changes.keep, added=changes.add, removed=changes.remove, replaced=changes.replace)
            return {"ok": True, "dry_run": True, **outcome.to_json(), "models": await self._wished()}
        before = await self._now()
        outcome = await self._supervisor.change_wish(change, strict=bool(args.get("strict")))
        if not outcome.failed:
            self._before = before
        return {"ok": not outcome.failed, **outcome.to_json(), "models": await self._wished()}

    async def _wished(self) -> Models:
        return await asyncio.to_thread(self._supervisor.hooks.wishes.show)

    async def _now(self) -> tuple[Config, Models]:
        """The configuration that runs, and the wish."""
        return self._supervisor.fleet.config, await self._wished()

    async def logs(self, args: dict[str, Any]) -> Answer:
        """The last lines of each named instance's log, and its path."""
        lines = int(args.get("lines", 50))
        found = self._named(args)
        return {
            "logs": [
                {"name": k.id, "path": str(k.log), "lines": await asyncio.to_thread(logfiles.tail, k.log, lines=lines)}
                for k in found
            ]
        }

    async def events(self, args: dict[str, Any]) -> AsyncIterator[Answer]:
        """The last events in one answer; with `follow` one by one, then every new one."""
        journal, count = self._supervisor.journal, int(args.get("count", 50))
        if not args.get("follow"):
            yield {"events": [entry.to_json() for entry in journal.last(count)]}
            return
        queue = journal.follow()
        try:
            for entry in journal.last(count):
                yield entry.to_json()
            while True:
                yield (await queue.get()).to_json()
        finally:
            journal.unfollow(queue)

    async def want(self, args: dict[str, Any]) -> Answer:
        return _done(self._supervisor.fleet.want(str(args.get("model", ""))))

    def reload_in_background(self) -> None:
        """Reload on SIGHUP; an error goes into the journal."""
        task = asyncio.ensure_future(self._reload_quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _reload_quietly(self) -> None:
        try:
            await self.reload({})
        except NemotronOpsError as exc:
            self._supervisor.journal.add("reload-failed", exc.message, level="error")

    def _named(self, args: dict[str, Any]) -> list[Keeper]:
        names = args.get("names") or ()
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ControlError("cannot read the request: names is not a list")
        return self._supervisor.fleet.named([str(n) for n in names])

    def _instance(self, k: Keeper) -> dict[str, Any]:
        view = k.view()
        record, death = k.record, k.death
        return {
            "name": k.id,
            "instance": k.spec.name,
            "model": k.spec.model,
            "state": str(view.state),
            "wanted": k.status.wanted or k.id in self._supervisor.fleet.pending,
            "pid": record.pid if record else None,
            "uptime_s": round(time.time() - record.wall_s, 1) if record else None,
            "restarts": k.status.restarts,
            "reason": self._supervisor.fleet.reason(k),
            "hint": death.hint if death and k.status.reason else "",
            "log": str(k.log),
            "log_tail": list(death.tail[-TAIL_SHOWN:]) if death and view.state in (State.FAILED, State.BACKOFF) else [],
            "build": k.spec.build,
            "slots": k.spec.slots,
            "sees": "--mmproj" in k.spec.argv,
            "ctx_tokens": k.spec.ctx_tokens,
            "planned_bytes": dict(k.spec.memory_bytes),
            "pinned": k.spec.lifecycle.pinned,
            "busy": k.busy,
            "inflight": self._supervisor.control.inflight(k.id) or 0,
            "draining": view.draining,
            "load_progress": view.load_progress,
            "socket": view.socket,
        }


def _model(model: ModelView) -> dict[str, Any]:
    """A model for `status`; `defaults` are the request fields that the gateway fills in."""
    return {
        "name": model.name,
        "names": list(model.names),
        "adapters": list(model.adapters),
        "on_demand": model.on_demand,
        "defaults": dict(model.defaults),
    }


def _companion(companion: Companion) -> dict[str, Any]:
    """The process of the gateway or of the page, for `status`."""
    return {
        "pid": companion.record.pid if companion.record else None,
        "state": str(companion.status.state),
        "reason": companion.status.reason,
        "restarts": companion.status.restarts,
        "log": str(companion.log),
    }


def check_program() -> None:
    """Raises ControlError unless the installed program starts: `reload --exec` would end the service."""
    done = run(python_argv("nemotron_ops", "--version"), timeout_s=60)
    if not done.ok:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ControlError(f"cannot run the installed version: it ends with {done.returncode}: {last}")


def url(scheme: str, host: str, port: int) -> str:
    """The gateway's URL for a client on this machine."""
    return addresses.url(scheme, addresses.near(host), port)


def _done(keepers: Sequence[Keeper]) -> Answer:
    return {"ok": True, "instances": [k.id for k in keepers]}
