"""Sessions: tokens, their hashes, their end. Pure but for the token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

DAYS = 30
LASTS_S = DAYS * 86400.0
SEEN_EVERY_S = 600.0  # how exactly the time of the last request is kept


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session, known by the hash of its token. Times in Unix seconds."""

    id: str  # the hash of its token
    begun_s: float
    seen_s: float
    agent: str = ""

    def over(self, now: float) -> bool:
        """Whether it has ended by itself."""
        return now - self.begun_s > LASTS_S


def new_token() -> str:
    """A session's token: 256 random bits."""
    return secrets.token_urlsafe(32)


def id_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_token(token: str) -> str:
    """The token of this session's forms: of no use without the cookie."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def same(a: str, b: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(a.encode(), b.encode())
