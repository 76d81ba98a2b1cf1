"""Which API a request of the gateway belongs to, by its path. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from nemotron_ops.agent.apis.chat import ChatFace
from nemotron_ops.agent.apis.face import Face
from nemotron_ops.agent.apis.messages import MessagesFace
from nemotron_ops.agent.apis.responses import ResponsesFace
from nemotron_ops.agent.wire import Asked

Make = Callable[[Asked, str, Collection[str]], Face]  # the request, the name of its sandbox, what can be used here
FACES: Mapping[str, Make] = {
    "responses": lambda asked, container, _: ResponsesFace(asked.body, container),
    "messages": lambda asked, _, __: MessagesFace(asked.body),
    "chat": lambda asked, _, usable: ChatFace(asked.body, asked.model, usable),
}


def api_of(path: str) -> str:
    """responses, messages or chat."""
    plain = path.partition("?")[0]
    return "responses" if "/responses" in plain else "messages" if plain.endswith("/messages") else "chat"
