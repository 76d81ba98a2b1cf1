"""Which requests may reach a handler at all, and the headers of every answer. Pure.

A page of another site must not drive this server, so before anything else the Host must be ours (DNS rebinding), a
foreign Origin or Sec-Fetch-Site is refused, and what changes something is a POST with a content type that no plain form
of another site can send, or with the session's token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types studio",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-read=()",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SAFE = frozenset({"GET", "HEAD"})
FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a request is refused: status and a text for people, which names the way out."""

    status: int
    said: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """The names under which this server may be asked."""

    port: int
    hosts: frozenset[str] = LOOPBACK
    tls: bool = False

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server. A proxy in front of it may use any port."""
        name, port = split_host(host)
        return name in self.hosts and (port in ("", str(self.port)) or name not in LOOPBACK)

    def is_our_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin is the very server that is asked."""
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and self.is_ours(host)


def split_host(host: str) -> tuple[str, str]:
    """Name and port of a Host header."""
    host = host.strip().lower()
    if host.startswith("["):
        name, _, port = host.partition("]")
        return name + "]", port.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def refusal(method: str, headers: Mapping[str, str], places: Places, *, token_fits: bool) -> Refused | None:
    """Why this request goes no further, or None. Header names are lower case; `token_fits`: a form's token is right."""
    host = headers.get("host", "")
    if not places.is_ours(host):
        return Refused(status=421, said=f"this server is not {host or 'named'}: start it with --allowed-host NAME")
    origin = headers.get("origin")
    if origin is not None and not places.is_our_origin(origin, host):
        return Refused(status=403, said="the request comes from a page of another site")
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        navigates = method in SAFE and headers.get("sec-fetch-mode") == "navigate" and site == "cross-site"
        if not navigates:  # a link from elsewhere may open a page, and changes nothing
            return Refused(status=403, said="the request comes from a page of another site")
    if method in SAFE:
        return None
    if method != "POST":
        return Refused(status=405, said="only GET and POST are used here")
    return _of_post(headers, token_fits=token_fits)


def _of_post(headers: Mapping[str, str], *, token_fits: bool) -> Refused | None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        return None
    if kind not in FORMS:
        return Refused(status=415, said="send JSON, or the form of a page")
    if not token_fits:
        return Refused(status=403, said="the form is from an earlier session: load the page again")
    return None
