"""Hashes of passwords: scrypt with a salt of its own. Pure but for the salt.

n = 2^15, r = 8, p = 1 take 32 MiB and about 0.1 s.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

N, R, P = 1 << 15, 8, 1
MEMORY = 64 << 20
LEAST = 8  # letters
MOST = 1024


def problem(password: str) -> str:
    """Why a password cannot be used, or an empty text."""
    if len(password) < LEAST:
        return f"a password has at least {LEAST} letters"
    if len(password) > MOST:
        return f"a password has at most {MOST} letters"
    return ""


def hashed(password: str, salt: bytes | None = None) -> str:
    """A password's hash with its salt and parameters, as text."""
    salt = salt or secrets.token_bytes(16)
    key = hashlib.scrypt(password.encode(), salt=salt, n=N, r=R, p=P, maxmem=MEMORY)
    return f"scrypt${N}${R}${P}${salt.hex()}${key.hex()}"


def fits(password: str, stored: str) -> bool:
    """Whether `password` has the hash `stored`; takes as long where it has not."""
    try:
        _, n, r, p, salt, key = stored.split("$")
        made = hashlib.scrypt(
            password[:MOST].encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p), maxmem=MEMORY
        )
        return hmac.compare_digest(made, bytes.fromhex(key))
    except ValueError:
        return False
