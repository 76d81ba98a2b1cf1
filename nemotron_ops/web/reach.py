"""Fetches a page from a public address only, hop by hop. httpx, sockets.

Per hop: http or https, no user in the address, port 80 or 443, one look-up of the name, each of its addresses public;
then the connection goes to the very address that was checked, with the name in `Host` and in TLS, so that a name that
changes its address between two look-ups gains nothing. Redirects are followed here, through the same checks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import unicodedata
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit
from weakref import WeakValueDictionary

from nemotron_ops.addresses import bracketed
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.web.public import is_public

if TYPE_CHECKING:
    import httpx

Resolve = Callable[[str, int], Awaitable[list[str]]]  # name, port -> addresses

MOST_BYTES = 2 << 20
TIME_S = 10.0
MOST_HOPS = 5
PORTS = {"http": 80, "https": 443}
TEXT_TYPES = ("text/", "application/xhtml+xml", "application/json", "application/xml", "application/rss+xml")
TEXT_ENDINGS = ("+json", "+xml")
AGENT = "nemotron-ops (reads one page for a person's question)"


class Unreachable(NemotronOpsError):
    """A page cannot be fetched, or must not be."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A page's bytes; `url` is where the last redirect led. Header names are lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False  # the page was longer than the bound

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


async def look_up(name: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The most that one page may take."""

    bytes: int = MOST_BYTES
    time_s: float = TIME_S
    hops: int = MOST_HOPS


@dataclass
class Reach:
    """Fetches pages. `allow` names inner hosts, each `host` or `host:port`, that may be reached as well."""

    allow: frozenset[str] = frozenset()
    resolve: Resolve = look_up
    bounds: Bounds = field(default_factory=Bounds)
    verify: ssl.SSLContext | None = None
    _hosts: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False)

    async def fetch(self, url: str, *, etag: str = "") -> Fetched:
        """The page at `url`, after at most `bounds.hops` redirects. Raises Unreachable."""
        import httpx

        shown = _shown(url)
        try:
            async with asyncio.timeout(self.bounds.time_s):
                return await self._follow(url, etag)
        except TimeoutError as exc:
            raise Unreachable(f"cannot read {shown}: no whole answer within {self.bounds.time_s:g} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL, OSError, zlib.error) as exc:
            raise Unreachable(f"cannot read {shown}: {str(exc) or type(exc).__name__}") from exc

    async def _follow(self, url: str, etag: str) -> Fetched:
        for _ in range(self.bounds.hops + 1):
            page = await self._hop(url, etag)
            if page.status not in (301, 302, 303, 307, 308):
                return page
            url = urljoin(url, page.headers.get("location", ""))
        raise Unreachable(f"cannot read {_shown(url)}: more than {self.bounds.hops} redirects")

    async def _hop(self, url: str, etag: str) -> Fetched:
        parts, host, port = checked(url)
        address = await self._address(host, port, url)
        lock = self._hosts.setdefault(host, asyncio.Lock())
        async with lock:
            return await self._get(parts, host, address, port, etag)

    async def _address(self, host: str, port: int, url: str) -> str:
        """The address to connect to: the first one, if all of them may be reached."""
        shown = _shown(url)
        try:
            addresses = await self.resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise Unreachable(f"cannot read {shown}: {host} has no address") from exc
        if not addresses:
            raise Unreachable(f"cannot read {shown}: {host} has no address")
        for address in addresses:
            names = {host, address, f"{host}:{port}", f"{address}:{port}"}
            if names & self.allow:
                continue
            if not is_public(address):
                raise Unreachable(
                    f"cannot read {shown}: {address} is no address of the public internet",
                    hint="name the host under `allow` in web.toml, if pages may be read there",
                )
            if port not in PORTS.values():
                raise Unreachable(
                    f"cannot read {shown}: port {port} is not allowed", hint="pages are read at ports 80 and 443"
                )
        return addresses[0]

    async def _get(self, parts: SplitResult, host: str, address: str, port: int, etag: str) -> Fetched:
        import httpx

        named = bracketed(host) if port == PORTS[parts.scheme] else f"{bracketed(host)}:{port}"
        headers = {"Host": named, "User-Agent": AGENT, "Accept": "text/html,text/*;q=0.9,*/*;q=0.1"}
        headers |= {"Accept-Encoding": "identity"} | ({"If-None-Match": etag} if etag else {})
        target = urlunsplit((parts.scheme, f"{bracketed(address)}:{port}", parts.path or "/", parts.query, ""))
        verify = self.verify if self.verify is not None else True
        async with (
            httpx.AsyncClient(trust_env=False, verify=verify, timeout=self.bounds.time_s) as http,
            http.stream("GET", target, headers=headers, extensions=_tls_name(host)) as response,
        ):
            body, cut = await self._body(response)
            return Fetched(
                url=urlunsplit(parts),
                status=response.status_code,
                headers={k.lower(): v for k, v in response.headers.items()},
                body=body,
                cut=cut,
            )

    async def _body(self, response: httpx.Response) -> tuple[bytes, bool]:
        """The body, decompressed here so that what it grows to is counted, and whether it was cut."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and not is_text(kind):
            raise Unreachable(f"cannot read {response.url.path}: {kind or 'a body without a type'} is no text")
        inflate = _inflater(response.headers.get("content-encoding", ""))
        most = self.bounds.bytes
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += inflate.decompress(chunk, most + 1 - len(body)) if inflate else chunk
            if len(body) > most:
                return bytes(body[:most]), True
        return bytes(body), False


def checked(url: str) -> tuple[SplitResult, str, int]:
    """A page's address in parts, the name to look up and the port. Raises Unreachable."""
    shown = _shown(url)
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise Unreachable(f"cannot read {shown}: {exc}") from exc
    if parts.scheme not in PORTS:
        raise Unreachable(f"cannot read {shown}: only http and https addresses are read", hint="name a page: https://…")
    if parts.username is not None or parts.password is not None:
        raise Unreachable(f"cannot read {shown}: an address with a user in it is not read")
    if any(ord(c) < 33 or ord(c) == 127 for c in url.strip()):
        raise Unreachable(f"cannot read {shown}: the address holds spaces or control characters")
    return parts, _ascii_name(host, shown), port or PORTS[parts.scheme]


def is_text(content_type: str) -> bool:
    """Whether a content type, without parameters, is text of a kind that is read."""
    return content_type.startswith(TEXT_TYPES) or content_type.endswith(TEXT_ENDINGS)


def _ascii_name(host: str, shown: str) -> str:
    import idna

    name = unicodedata.normalize("NFKC", host).rstrip(".").lower()
    try:
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise Unreachable(f"cannot read {shown}: {host} is no name of a host") from exc
    if not name or set(name) & set("/\\@?#%"):
        raise Unreachable(f"cannot read {shown}: it names no host")
    return name


def _tls_name(host: str) -> dict[str, str]:
    """The name that TLS asks for and checks the certificate against; an address is checked as it is."""
    try:
        ip_address(host)
    except ValueError:
        return {"sni_hostname": host}
    return {}


def _inflater(encoding: str) -> zlib._Decompress | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        case other:
            raise Unreachable(f"cannot read the page: it is compressed ({other[:20]}), which was not asked for")


def _shown(url: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in url)
    return text if len(text) <= 200 else text[:200] + "…"
