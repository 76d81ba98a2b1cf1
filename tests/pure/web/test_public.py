"""Addresses: which are public, whatever form hides an inner one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.web.public import is_public

INNER = [
    *(
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ),
    *("192.0.0.8", "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
    *("2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fe80::1%eth0", "5f00::1", "3fff::1"),
    *("localhost", "", "127.1", "0x7f.1"),
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "192.1.0.1"]


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_no_ipv6_form_of_an_inner_address_is_public(address: IPv4Address) -> None:
    forms = [
        IPv6Address((0xFFFF << 32) | int(address)),
        IPv6Address(int(address)),
        IPv6Address((0x64FF9B << 96) | int(address)),
        IPv6Address((0x2002 << 112) | (int(address) << 80)),
    ]
    if not is_public(address):
        assert not any(is_public(form) for form in forms)
