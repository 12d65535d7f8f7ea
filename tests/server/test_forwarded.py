"""Whose word is taken for where a request comes from, and for which words."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.forwarded import UNKNOWN, client_of, read_network
from server.settings import BadSettings, load

TRUSTED = [read_network(each) for each in ("127.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32")]
Lines = tuple[bytes, ...]


def client(*lines: bytes, peer: str = "127.0.0.1") -> str | None:
    """Return where a request with these lines of the header comes from."""
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line) for line in lines)]
    return client_of(peer, headers, TRUSTED)


@pytest.mark.parametrize("peer", ["203.0.113.9", "128.0.0.1", "2001:db9::1", "", "/run/socket"])
def test_who_is_no_trusted_proxy_is_not_believed(peer: str) -> None:
    assert client(b"198.51.100.1", peer=peer) is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "::1", "2001:db8::5", "::ffff:10.1.2.3"])
def test_a_trusted_proxy_is_believed(peer: str) -> None:
    assert client(b"198.51.100.1", peer=peer) == "198.51.100.1"
    assert client(peer=peer) is None
    assert client(b"", b" , ", peer=peer) is None


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ((b"198.51.100.1, 10.0.0.7",), "198.51.100.1"),
        ((b"127.0.0.1, 198.51.100.1",), "198.51.100.1"),
        ((b"192.0.2.1,198.51.100.1 ,\t10.0.0.7, 10.0.0.8",), "198.51.100.1"),
        ((b"192.0.2.1, 198.51.100.1", b"10.0.0.7"), "198.51.100.1"),
        ((b"198.51.100.1", b"192.0.2.1"), "192.0.2.1"),
        ((b"10.0.0.9, 10.0.0.7",), "10.0.0.9"),
        ((b",198.51.100.1,,",), "198.51.100.1"),
        ((b"198.51.100.1:4711",), "198.51.100.1"),
        ((b"2001:DB9:0::1",), "2001:db9::1"),
        ((b"[2001:db9::1]",), "2001:db9::1"),
        ((b"[2001:db9::1]:4711",), "2001:db9::1"),
        ((b"::ffff:198.51.100.1",), "198.51.100.1"),
        ((b"198.51.100.1, [2001:db8::7]:80",), "198.51.100.1"),
        ((b"garbage, 198.51.100.1",), "198.51.100.1"),
    ],
)
def test_the_rightmost_that_is_no_proxy_is_the_client(lines: Lines, address: str) -> None:
    assert client(*lines) == address


@pytest.mark.parametrize(
    "garbage",
    [
        b"unknown",
        b"localhost",
        b"198.51.100.1.",
        b"198.51.100.256",
        b"198.51.100.01",
        b"198.51.100.1:",
        b"198.51.100.1:port",
        b"198.51.100.1:123456",
        b"2001:db9::1]",
        b"[2001:db9::1",
        b"[2001:db9::1]x",
        b"fe80::1%eth0",
        b"[198.51.100.1",
        b'"[2001:db9::1]"',
        b"for=198.51.100.1",
        b"198.51.100.1 198.51.100.2",
        b"198.51.100.1\x00",
        b"\xff",
        b"1" * 16_000,
        b"::" + b"1" * 16_000,
    ],
)
def test_what_is_no_address_is_one_and_the_same_for_all(garbage: bytes) -> None:
    assert client(garbage) == UNKNOWN
    assert client(b"198.51.100.1, " + garbage) == UNKNOWN
    assert client(garbage + b", 10.0.0.1") == UNKNOWN


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"10.0.0.1", b"::1, ", b","])))
def test_whatever_comes_the_answer_is_an_address_or_none(lines: list[bytes]) -> None:
    found = client(*lines)
    if found not in (None, UNKNOWN):
        assert str(ip_address(found)) == found


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.1/8", "*", "localhost", "10.0.0.0/33", "10.0.0.0-9", "::1%lo", "::ffff:10.0.0.1", "/"],
)
def test_a_proxy_that_is_no_address_is_named_with_its_setting(entry: str) -> None:
    with pytest.raises(BadSettings) as error:
        load(None, {"ROOMCAST_SERVER__TRUSTED_PROXIES": f"127.0.0.1,{entry}"})

    assert f"server.trusted_proxies: {entry!r} is no address" in str(error.value)
