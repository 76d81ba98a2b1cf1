"""An instance's own pages (`/slots`, `/props`, `/engine/metrics` ...), for the admin scope. asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_ops.gateway.api.catalog import may_serve
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import upstream_head
from nemotron_ops.gateway.keys.ring import may_use
from nemotron_ops.gateway.upstream.attempt import Attempt, Whole
from nemotron_ops.supervisor.snapshot import InstanceView

if TYPE_CHECKING:
    from nemotron_ops.gateway.exchange.exchange import Exchange


async def show_page(exchange: Exchange) -> None:
    """Answer with the page of the instance that is named, or of one that serves the model. Raises Refusal."""
    directory = exchange.pool.directory
    name = exchange.request.param("instance")
    if not name:
        named = directory.resolve(exchange.request.param("model"), exchange.key.models)
        views = directory.instances.get(named.model.name, ())
        name = next((v.name for v in views if may_serve(v)), views[0].name if views else "")
    shown = [view.name for view in directory.snapshot.instances if _may_see(exchange, view)]
    upstream = exchange.pool.upstreams.get(name) if name in shown else None
    if upstream is None:
        known = ", ".join(shown) or "none"
        raise Refusal(status=404, code="instance_not_found", message=f"no such instance; known: {known}")
    exchange.instance = name
    route = exchange.route
    path = "/metrics" if route.path == "/engine/metrics" else route.upstream
    head = upstream_head(path, key=upstream.key, length=0, content_type=b"", method="GET")
    outcome = await Attempt(upstream).ask(head, b"")
    if not isinstance(outcome, Whole):
        raise Refusal(status=502, code="engine_lost", message="the instance did not answer")
    exchange.status = outcome.status
    exchange.client.reply(outcome.status, outcome.body, content_type=outcome.content_type, extra=exchange.headers())


def _may_see(exchange: Exchange, view: InstanceView) -> bool:
    model = exchange.pool.directory.models.get(view.model)
    names = (view.model, *model.names) if model is not None else (view.model,)
    return may_use(exchange.key, names)
