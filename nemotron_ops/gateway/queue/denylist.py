"""Requests that an engine died of or got stuck on: their bodies are refused for a while. Pure.

A body costs at most two engines; a key whose bodies go on costing engines is refused as a whole, so that no key spends
the restarts of an instance.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from hashlib import blake2b

from nemotron_ops.gateway.api.errors import Refusal

KEPT_S = 600.0
CAPACITY = 1024  # bodies, of all keys
KEY_BODIES = 3  # of one key within KEPT_S; then the key is refused
KEYS = 1024
DIGEST_BYTES = 16


class Denylist:
    """Digests of bodies, and when each is forgotten; the oldest goes first if there are too many."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.bodies: OrderedDict[bytes, float] = OrderedDict()
        self._keys: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, model: str, key: str, body: bytes, now: float) -> None:
        """Refuse `body` for `model` from now on. `key` is the id of the client's key, empty without keys."""
        self.bodies[digest(model, body)] = now + KEPT_S
        while len(self.bodies) > self.capacity:
            self.bodies.popitem(last=False)
        if key:
            self._keys.setdefault(key, deque(maxlen=KEY_BODIES)).append(now + KEPT_S)
            self._keys.move_to_end(key)
            while len(self._keys) > KEYS:
                self._keys.popitem(last=False)

    def check(self, model: str, key: str, body: bytes, now: float) -> None:
        """Raises Refusal for a body that is listed, and for any body of a key that has too many listed."""
        while self.bodies and next(iter(self.bodies.values())) <= now:
            self.bodies.popitem(last=False)
        listed = self._keys.get(key)
        if listed is not None and len(listed) == KEY_BODIES and listed[0] > now:
            raise Refusal(
                status=429, code="too_many_engine_deaths", retry_after_s=listed[0] - now,
                message=f"llama-server was lost on {KEY_BODIES} requests of this API key in {KEPT_S / 60:g} min",
            )  # fmt: skip
        if self.bodies and digest(model, body) in self.bodies:
            raise Refusal(
                status=400, code="kills_engine",
                message=f"llama-server was lost on this request; it is refused for {KEPT_S / 60:g} minutes",
            )  # fmt: skip


def digest(model: str, body: bytes) -> bytes:
    """What is kept of a body."""
    return blake2b(
        body, digest_size=DIGEST_BYTES, key=blake2b(model.encode(), digest_size=DIGEST_BYTES).digest()
    ).digest()
