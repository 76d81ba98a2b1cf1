"""What is known of one request: client, route, instance, answer so far, and how it ended. Pure."""

from __future__ import annotations

import msgspec

from nemotron_ops.gateway.api.routes import Route
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.client.heads import Request
from nemotron_ops.gateway.continuation.recovery import Recovery
from nemotron_ops.gateway.keys.ring import ANYONE, Key
from nemotron_ops.gateway.ollama.conversion import OllamaConversion
from nemotron_ops.gateway.queue.ticket import Ticket
from nemotron_ops.gateway.responses.conversion import Conversion
from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.gateway.streams.usage import Usage
from nemotron_ops.gateway.toolcalls.healing import Healing
from nemotron_ops.gateway.upstream.connection import Upstream


class Record(msgspec.Struct, eq=False):
    """One request, as responses, accounting and traces see it. `Exchange` is the same object with what runs it."""

    client: ClientConnection
    request: Request
    route: Route
    id: str
    started: float  # when the whole request had arrived, by the event loop's clock
    origins: frozenset[str]  # web origins whose pages may read the response
    recovery: Recovery
    key: Key = ANYONE
    entered: bool = False  # counted against the key's quota
    model: str = ""
    asked: str = ""  # the client's name for the model
    instance: str = ""
    upstream: Upstream | None = None  # the engine's process, of the last attempt
    granted_at: float = 0.0  # when it got that instance
    suspected: bool = False  # an engine was lost with it: the next one gets it alone
    status: int = 0  # of the response; 0 until it begins
    cause: str = ""  # of an error
    queued_s: float = 0.0
    tries: int = 0
    ticket: Ticket | None = None
    relay: Relay | None = None
    events_before: int = 0  # events that earlier attempts brought
    usage: Usage | None = None  # an estimate, for a response that was cut off
    whole: bytes = b""  # a whole response, which states its own usage
    conversion: Conversion | OllamaConversion | None = None  # if the client speaks another API than its engine
    healing: Healing | None = None  # if functions are offered
    losses: tuple[tuple[float, str, str], ...] = ()  # time, instance, reason of each failed attempt
