"""Files that are read again when they change: the keys, the TLS certificate and its key. Disk.

What cannot be used is reported and the old one stays in force; only a first keys file that cannot be read shuts the
door, for whoever made it wants keys to be asked for.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from nemotron_ops.errors import GatewayError, NemotronOpsError
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import KeyRing
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.warnings_log import say

NOBODY = KeyRing(keys={})


class Watch:
    """The keys and the certificate in force. `ring` is None where no key is asked for."""

    def __init__(self, options: Options, *, ring: KeyRing | None, tls: ssl.SSLContext | None) -> None:
        self.options = options
        self.ring = ring
        self.tls = tls
        keys, pair = options.api_keys_file, (options.tls_cert, options.tls_key)
        self._stamps = {path: keystore.stamp(path) for path in (keys, *pair) if path}
        if keys and ring is None:
            self._stamps[keys] = None  # made since `first_ring` looked

    def look(self) -> bool:
        """Take over what has changed; returns whether the keys have."""
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
            self.ring = NOBODY
            say(f"there are keys now, in {path}: from here on one is asked for")
        try:
            self.ring = keystore.read_ring(Path(path))
        except NemotronOpsError as exc:
            say(f"warning: {path} has changed but cannot be used, keeping the old one: {exc}")
            return False
        return True

    def _renew(self, tls: ssl.SSLContext) -> None:
        """Two files are never replaced in one moment, and a context that was given only one of them serves nobody."""
        cert, key = self.options.tls_cert, self.options.tls_key
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.options)
        except GatewayError as exc:
            say(f"warning: {cert} or {key or 'its key'} has changed but cannot be used, keeping the old one: {exc}")
            return
        try:
            load_pair(tls, self.options)
        except GatewayError:  # replaced between the two: look again in a second
            self._stamps.update({path: None for path in (cert, key) if path})


def first_ring(options: Options) -> KeyRing | None:
    """The keys to begin with. Raises GatewayError or UsageError."""
    path = Path(options.api_keys_file)
    if not options.api_keys_file or (options.keys_optional and not path.exists()):
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
    """Give `context` the certificate and its key. Raises GatewayError."""
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ssl.SSLError) as exc:
        raise GatewayError(f"cannot use the certificate {options.tls_cert}: {exc}") from exc
