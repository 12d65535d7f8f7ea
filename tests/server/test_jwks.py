"""Sets of keys: when they are asked for, by whom they are not, and over a real HTTP server."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from actors.errors import Refused
from server import jwks
from server.jwks import KeyFetcher, fetch
from server.keys import KEYS, read_jwks
from server.keysets import FRESH, KEPT, PAUSE, KeySet
from server.settings import Settings
from server.tenants import Tenants
from server.tokens import UnknownKey, verify
from tests.tokens import SECRET, forge, mint, part, pem, private

WRITERS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def jwk(algorithm: str, kid: str, **more: Any) -> dict[str, Any]:
    """Return the public part of a key as a set has it."""
    public = WRITERS[algorithm].to_jwk(private(algorithm).public_key(), as_dict=True)
    return {**public, "kid": kid, **more}


def document(*keys: Any) -> bytes:
    """Return a set."""
    return json.dumps({"keys": keys}).encode()


class Source:
    """An address with a set of keys, which counts how often it is asked."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, document(), 0
        self.headers: dict[str, str] = {}
        self.url = ""


@contextmanager
def serving_keys() -> Iterator[Source]:
    """Run an HTTP server with a set of keys for the length of a block."""
    source = Source()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.asked += 1
            self.send_response(source.status)
            for name, value in source.headers.items():
                self.send_header(name, value)

            self.end_headers()
            self.wfile.write(source.body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        source.url = f"http://127.0.0.1:{server.server_port}/canary"
        try:
            yield source
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def source() -> Iterator[Source]:
    """An address with a set of keys."""
    with serving_keys() as running:
        yield running


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return what was set."""
        return self.now

    wall = monotonic


@asynccontextmanager
async def fetching(tenants: Tenants, clock: Time) -> AsyncIterator[KeyFetcher]:
    """Run a fetcher, and wait until it has asked for the first time."""
    fetcher = KeyFetcher(lambda: tenants.sets, clock, tenants.owner)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetcher.run)
        with anyio.fail_after(10):
            await fetcher.settled()

        yield fetcher
        tasks.cancel_scope.cancel()


async def until_asked(keys: KeySet, fetcher: KeyFetcher) -> None:
    """Let the fetcher look, and wait until nothing is asked any more."""
    fetcher.wake()
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(10):
        while keys.asking:
            await anyio.lowlevel.checkpoint()


def tenants_of(*urls: str, **more: Any) -> Tenants:
    """Return one tenant whose keys are behind these addresses."""
    keys = {f"set{n}": {"jwks": url} for n, url in enumerate(urls)}
    return Tenants(msgspec.convert({"tenants": {"acme": {"keys": keys | more}}}, Settings))


def test_a_set_is_asked_for_when_it_is_due_and_kept_for_a_day() -> None:
    keys, known = KeySet(), read_jwks(document(jwk("EdDSA", "a")))
    assert keys.due() <= 0
    keys.ask(0)
    assert keys.due() == float("inf")
    keys.took(known, 1)
    assert keys.due() == 1 + FRESH
    assert (keys.miss(), keys.miss()) == (True, False)
    assert keys.due() == PAUSE
    keys.ask(PAUSE)
    keys.took(known, PAUSE)
    assert keys.due() == PAUSE + FRESH
    keys.ask(700)
    keys.failed(705)
    assert keys.due() == 700 + PAUSE
    keys.ask(PAUSE + KEPT)
    keys.failed(PAUSE + KEPT)
    assert keys.keys == known
    keys.failed(PAUSE + KEPT + 1)
    assert keys.keys == {}


def test_what_is_of_no_use_in_a_set_is_skipped() -> None:
    secret = HMACAlgorithm.to_jwk(SECRET, as_dict=True)
    fields = jwk("RS256", "x")
    found = read_jwks(
        document(
            jwk("RS256", "rsa"),
            jwk("ES256", "ec", use="sig", alg="ES256", key_ops=["verify"]),
            jwk("EdDSA", "ed", more=[1]),
            jwk("RS256", "ed"),
            {**secret, "kid": "secret"},
            {"kty": "parrot", "kid": "parrot"},
            jwk("RS256", "other-algorithm", alg="RS512"),
            jwk("RS256", "secret-algorithm", alg="HS256"),
            jwk("RS256", "for-encryption", use="enc"),
            jwk("RS256", "for-signing", key_ops=["sign"]),
            {**fields, "kid": "number", "n": 5},
            {**fields, "kid": "broken", "n": "!"},
            {**fields, "kid": "short", "n": "AQAB"},
            {**jwk("ES256", "off-curve"), "x": "AAAA"},
            {**jwk("ES256", "other-curve"), "crv": "P-384"},
            {**jwk("EdDSA", "other-length"), "x": "AAAA"},
            jwk("RS256", ""),
            {key: value for key, value in fields.items() if key != "kid"},
            "text",
            None,
        )
    )
    assert {kid: key.algorithm for kid, key in found.items()} == {
        "rsa": "RS256",
        "ec": "ES256",
        "ed": "EdDSA",
    }
    many = [jwk("EdDSA", str(n)) for n in range(KEYS + 1)]
    assert len(read_jwks(document(*many))) == KEYS


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys": 1}', b'{"keys":' + b"[" * 9999])
def test_what_is_no_set_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="the answer is no set of keys"):
        read_jwks(body)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (500, {}, b"", "it answered 500"),
        (302, {"Location": "http://127.0.0.1:1/"}, b"", "it answered 302"),
        (307, {"Location": "file:///etc/passwd"}, b"", "it answered 307"),
        (200, {}, b" " * 70_000, "over 65536 bytes"),
        (200, {}, b"{", "no set of keys"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error(
    source: Source, status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    source.status, source.headers, source.body = status, headers, body
    with pytest.raises((OSError, ValueError), match=said) as error:
        fetch(source.url)

    assert "canary" not in str(error.value)
    assert source.asked == 1


def test_an_address_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "STEP_WITHIN", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(OSError, match="timed out"),
    ):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.anyio
async def test_keys_come_from_the_address_and_change_there(source: Source) -> None:
    source.body = document(jwk("EdDSA", "one"))
    tenants, clock = tenants_of(source.url), Time()
    old, new = (
        mint(key=private(algorithm), algorithm=algorithm, headers={"kid": kid}, exp=60)
        for algorithm, kid in (("EdDSA", "one"), ("ES256", "two"))
    )
    async with fetching(tenants, clock) as fetcher:
        keys = tenants.sets[source.url]
        verify(old, tenants.by_name, 0)
        source.body = document(jwk("ES256", "two"))
        for _ in range(3):
            with pytest.raises(UnknownKey) as unknown:
                verify(new, tenants.by_name, 0)

            fetcher.miss(unknown.value.customer.sets)
            await until_asked(keys, fetcher)
            assert source.asked == 1

        clock.now = PAUSE
        await until_asked(keys, fetcher)
        assert source.asked == 2
        verify(new, tenants.by_name, 0)
        with pytest.raises(Refused):
            verify(old, tenants.by_name, 0)

        clock.now = PAUSE + FRESH
        await until_asked(keys, fetcher)
        assert source.asked == 3


@pytest.mark.anyio
async def test_a_failure_keeps_the_last_set_and_is_logged_once(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.body = document(jwk("EdDSA", "one"))
    tenants, clock = tenants_of(source.url, "http://127.0.0.1:1/canary"), Time()
    async with fetching(tenants, clock) as fetcher:
        keys = tenants.sets[source.url]
        source.status = 503
        for _ in range(3):
            clock.now += FRESH
            await until_asked(keys, fetcher)

        assert source.asked == 4
        assert keys.keys
        clock.now += KEPT
        await until_asked(keys, fetcher)
        assert not keys.keys

    told = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    site = source.url.removeprefix("http://").removesuffix("/canary")
    assert f"tenant 'acme', key 'set0': the keys at {site} could not be fetched" in told[1]
    assert sum("it answered 503" in line for line in told) == 1
    assert sum("refused" in line for line in told) == 1
    assert "tenant 'acme', key 'set1': the keys at 127.0.0.1:1 could not be fetched" in told[0]
    assert "canary" not in caplog.text


def test_a_set_is_shared_and_its_public_keys_are_no_secrets() -> None:
    url = "https://example.com/keys"
    tenants = tenants_of(url, url)
    assert tenants.sets.keys() == {url}
    assert tenants.by_name["acme"].find("set0") is None
    tenants.sets[url].took(read_jwks(document(jwk("RS256", "one"))), 0)
    assert tenants.by_name["acme"].suited("RS256").keys() == {"one"}
    forged = forge({"alg": "HS256", "kid": "one"}, pem("RS256").encode())
    with pytest.raises(Refused):
        verify(forged, tenants.by_name, 0)


def test_a_token_without_a_kid_is_tried_with_the_keys_of_a_set_or_has_it_asked_again() -> None:
    url = "https://example.com/keys"
    tenants = tenants_of(url, local={"secret": SECRET})
    nameless = mint(key=private("EdDSA"), algorithm="EdDSA", exp=60)
    with pytest.raises(UnknownKey, match="not signed by a key of its tenant"):
        verify(nameless, tenants.by_name, 0)

    keys = [jwk("ES256", "one"), jwk("EdDSA", "two"), jwk("RS256", "three")]
    tenants.sets[url].took(read_jwks(document(*keys)), 0)
    assert verify(nameless, tenants.by_name, 0).kid == "two"
    assert verify(mint(exp=60), tenants.by_name, 0).kid == "local"
    forged = forge({"alg": "EdDSA"}, pem("EdDSA").encode(), exp=60)
    with pytest.raises(UnknownKey):
        verify(forged, tenants.by_name, 0)

    many = [jwk("EdDSA", str(number)) for number in range(5)]
    tenants.sets[url].took(read_jwks(document(*many)), 0)
    with pytest.raises(Refused, match="must name its key"):
        verify(nameless, tenants.by_name, 0)


FIELDS = st.text("AQB_-=!é\0", max_size=12) | st.binary(max_size=70).map(part)


@given(
    st.sampled_from(("RSA", "EC", "OKP", "oct")),
    st.sampled_from(("P-256", "P-521", "Ed25519", "Ed448", "X25519", "")),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("n", "e", "x", "y", "kid"), FIELDS)),
)
def test_any_key_is_read_or_skipped(kty: str, crv: str, fields: dict[str, str]) -> None:
    found = read_jwks(document({"kid": "a", **fields, "kty": kty, "crv": crv}, jwk("EdDSA", "b")))
    assert "b" in found
