"""What all requests of the page share: store, login, neighbours, running turns. asyncio."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemotron_ops.studio.guard import Places
from nemotron_ops.studio.login.attempts import Attempts
from nemotron_ops.studio.login.store import LoginStore
from nemotron_ops.studio.neighbours.gateway import Gateway
from nemotron_ops.studio.neighbours.supervisor import Supervisor
from nemotron_ops.studio.neighbours.work import Work
from nemotron_ops.studio.threads.store import Store
from nemotron_ops.studio.turns.feed import Feed
from nemotron_ops.studio.turns.run import Turns


@dataclass(kw_only=True)
class Shared:
    """One per process."""

    places: Places
    login: LoginStore
    store: Store
    gateway: Gateway
    supervisor: Supervisor
    work: Work
    feed: Feed
    turns: Turns
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def cookie(self) -> str:
        """The session's cookie. Cookies ignore ports, so its name carries ours."""
        return f"nemotron_studio_{self.places.port}"
