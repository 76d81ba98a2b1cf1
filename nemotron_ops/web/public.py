"""Which addresses are public: those that pages may come from. Pure.

`ipaddress.is_global` (Python 3.11) calls NAT64, 6to4 and IPv4-compatible forms of inner addresses global, and all of
multicast; so addresses inside addresses are judged too, and what has no place on the public web is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
COMPATIBLE = IPv6Network("::/96")  # RFC 4291, deprecated; holds ::1 and :: too
REFUSED = tuple(
    ip_network(net)
    for net in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carrier-grade NAT
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks of networks
        "240.0.0.0/4",  # reserved, and broadcast
        "100::/64",  # discarded
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link local
        "fec0::/10",  # site local, deprecated
    )
)


def embedded(address: Address) -> Iterable[IPv4Address]:
    """The IPv4 addresses that an IPv6 address carries: mapped, compatible, NAT64, 6to4, Teredo."""
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in COMPATIBLE or any(address in net for net in NAT64):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def is_public(address: str | Address) -> bool:
    """Whether an address is on the public internet, as are all addresses that it carries."""
    if isinstance(address, str):
        try:
            address = ip_address(address.partition("%")[0])
        except ValueError:
            return False
    inner = list(embedded(address))
    if any(not is_public(a) for a in inner):
        return False
    if inner and isinstance(address, IPv6Address) and address.ipv4_mapped:
        return True
    if address.is_multicast or any(address in net for net in REFUSED if net.version == address.version):
        return False
    return address.is_global
