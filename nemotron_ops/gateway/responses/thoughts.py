"""Carries reasoning through clients that keep only `encrypted_content` of it. Pure.

Clients that store nothing at the server ask for `include: ["reasoning.encrypted_content"]` and send the text back on
the next turn, often without the item's other fields. The text is the reasoning itself, packed, and not secret: the
client received the same words in the item's `content`.
"""

from __future__ import annotations

import base64
import binascii
import zlib

PREFIX = "nops1."
MOST_BYTES = 1 << 20  # of unpacked reasoning; a small text can unpack to gigabytes


def packed(reasoning: str) -> str:
    """`reasoning` as the text of `encrypted_content`."""
    return PREFIX + base64.b64encode(zlib.compress(reasoning.encode(), 1)).decode()


def unpacked(text: str) -> str:
    """The reasoning in an `encrypted_content`; empty if another server made it, or if it is damaged or too long."""
    if not text.startswith(PREFIX):
        return ""
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(text[len(PREFIX) :], validate=True), MOST_BYTES)
        return data.decode() if unzip.eof else ""
    except (binascii.Error, zlib.error, ValueError):
        return ""
