"""Serves an instance's own pages (`/slots`, `/props`, `/engine/metrics` ...) to the admin scope. asyncio."""

from __future__ import annotations

from nemotron_ops.gateway.api.catalog import may_serve
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.exchange.ask_whole import ask_whole
from nemotron_ops.gateway.exchange.model_access import may_see_instance
from nemotron_ops.gateway.exchange.respond import reply_page
from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.record import Record


async def show_page(record: Record, pool: Pool) -> None:
    """Answer with a page of the named instance, or of one that serves the named model. Raises Refusal."""
    directory = pool.directory
    name = record.request.param("instance")
    if not name:
        named = directory.resolve(record.request.param("model"), record.key.models)
        views = directory.instances.get(named.model.name, ())
        name = next((v.name for v in views if may_serve(v)), views[0].name if views else "")
    visible = [v.name for v in directory.snapshot.instances if may_see_instance(record.key, v, directory)]
    upstream = pool.upstreams.get(name) if name in visible else None
    if upstream is None:
        known = ", ".join(visible) or "none"
        raise Refusal(status=404, code="instance_not_found", message=f"no such instance; known: {known}")
    record.instance = name
    path = "/metrics" if record.route.path == "/engine/metrics" else record.route.upstream
    reply_page(record, await ask_whole(upstream, path, method="GET"))
