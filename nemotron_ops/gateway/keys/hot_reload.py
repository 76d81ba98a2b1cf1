"""Reloads the API keys, the TLS certificate and its key when their files change. Disk.

A changed file that is unusable is reported, and the old content stays in force. Only an unreadable keys file that is
the first one locks all clients out, because its existence means that keys are to be required.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from nemotron_ops.errors import GatewayError, NemotronOpsError
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import KeyRing
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.warnings_log import say

NO_KEYS = KeyRing(keys={})


class ReloadedFiles:
    """The keys and the certificate in force. `ring` is None if no key is required."""

    def __init__(self, options: Options, *, ring: KeyRing | None, tls: ssl.SSLContext | None) -> None:
        self.options = options
        self.ring = ring
        self.tls = tls
        keys, pair = options.api_keys_file, (options.tls_cert, options.tls_key)
        self._stamps = {path: keystore.stamp(path) for path in (keys, *pair) if path}
        if keys and ring is None:
            self._stamps[keys] = None  # created since `first_ring` looked

    def look(self) -> bool:
        """Reload changed files; returns whether the keys have changed."""
        changed = [path for path in self._stamps if self._is_new(path)]
        if self.tls is not None and {self.options.tls_cert, self.options.tls_key} & set(changed):
            self._renew(self.tls)
        return self.options.api_keys_file in changed and self._read_keys()

    def _is_new(self, path: str) -> bool:
        stamp = keystore.stamp(path)
        if stamp is None or stamp == self._stamps[path]:
            return False
        self._stamps[path] = stamp
        return True

    def _read_keys(self) -> bool:
        path = self.options.api_keys_file
        if self.ring is None:
            self.ring = NO_KEYS
            say(f"there are keys now, in {path}: a key is required from here on")
        try:
            self.ring = keystore.read_ring(Path(path))
        except NemotronOpsError as exc:
            say(f"warning: {path} has changed but cannot be used, keeping the old one: {exc}")
            return False
        return True

    def _renew(self, tls: ssl.SSLContext) -> None:
        """Check the pair in a context of its own first: the live one would fail all handshakes with half of a pair."""
        cert, key = self.options.tls_cert, self.options.tls_key
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.options)
        except GatewayError as exc:
            say(f"warning: {cert} or {key or 'its key'} has changed but cannot be used, keeping the old one: {exc}")
            return
        try:
            load_pair(tls, self.options)
        except GatewayError:  # a file was replaced in between: retry in a second
            self._stamps.update({path: None for path in (cert, key) if path})


def first_ring(options: Options) -> KeyRing | None:
    """The keys at start. Raises GatewayError or UsageError."""
    path = Path(options.api_keys_file)
    if not options.api_keys_file or (options.keys_optional and not os.path.lexists(path)):
        return None
    return keystore.read_ring(path)


def first_tls(options: Options) -> ssl.SSLContext | None:
    """The server's TLS context, None without a certificate. Raises GatewayError."""
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, options)
    return context


def load_pair(context: ssl.SSLContext, options: Options) -> None:
    """Load the certificate and its key into `context`. Raises GatewayError."""
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ssl.SSLError) as exc:
        raise GatewayError(f"cannot use the certificate {options.tls_cert}: {exc}") from exc
