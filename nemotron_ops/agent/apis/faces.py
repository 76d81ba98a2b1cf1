"""Which API a request of the gateway belongs to, by its path. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nemotron_ops.agent.apis.face import Face
from nemotron_ops.agent.apis.responses import ResponsesFace
from nemotron_ops.agent.wire import Asked

Make = Callable[[Asked, str], Face]  # the request, the name of its sandbox
FACES: Mapping[str, Make] = {
    "responses": lambda asked, container: ResponsesFace(asked.body, container),
}


def api_of(path: str) -> str:
    """responses, messages or chat."""
    plain = path.partition("?")[0]
    return "responses" if "/responses" in plain else "messages" if plain.endswith("/messages") else "chat"
