"""Tokens: the good ones of each algorithm, and every way to be refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.principal import Grant
from server import tokens
from server.settings import Settings
from server.tenants import Tenants
from server.tokens import verify
from tests.tokens import OTHER_SECRET, SECRET, claims, forge, mint, part, pem, private, tenant

NOW = 1_800_000_000.0
ALGORITHMS = ("RS256", "ES256", "EdDSA")
TABLE = {
    **tenant("acme"),
    **tenant("other", OTHER_SECRET, audience="roomcast"),
    "many": {
        "keys": {
            "HS256": {"secret": SECRET},
            **{algorithm: {"pem": pem(algorithm)} for algorithm in ALGORITHMS},
        }
    },
    "public": {"keys": {"main": {"pem": pem("RS256")}}},
    "two": {
        "keys": {
            "old": {"secret": SECRET},
            "new": {"secret": OTHER_SECRET},
            "public": {"pem": pem("RS256")},
        }
    },
    "four": {"keys": {str(n % 4): {"secret": f"{n}{SECRET}"} for n in range(1, 5)}},
    "five": {"keys": {str(n): {"secret": f"{n}{SECRET}"} for n in range(5)}},
}
TENANTS = Tenants(msgspec.convert({"tenants": TABLE}, Settings)).by_name
BAD_CLAIM = re.compile(tokens.BAD_CLAIM.format(r"[a-z]+(\[\d+\](\.[a-z]+(\[\d+\])?)?)?"))
Make = Callable[[], str]


def bad_claim(name: str) -> str:
    """Return what is said of a claim of a wrong form."""
    return tokens.BAD_CLAIM.format(name)


def good(**changes: Any) -> str:
    """Make a token that is good at NOW, but for the changes."""
    return mint(**{"exp": NOW + 60, **changes})


def refusal(token: str) -> str:
    """Return the sentence by which a token is refused."""
    with pytest.raises(Refused) as error:
        verify(token, TENANTS, NOW)

    expired = error.value.message == tokens.EXPIRED
    assert error.value.code == ("token_expired" if expired else "unauthorized")
    assert error.value.__cause__ is None
    known = error.value.message in vars(tokens).values()
    assert known or BAD_CLAIM.fullmatch(error.value.message)
    return error.value.message


def test_a_token_says_who_it_is_and_what_they_may() -> None:
    rooms = [{"pattern": "a-*", "can": ["speak", "listen"]}, {"room": "b:1", "can": ["admin"]}]
    more = {"sub": "ann", "name": "Ann", "jti": "t1", "nbf": NOW + 29, "iat": 1, "x": [None]}
    principal = verify(good(rooms=rooms, **more), TENANTS, NOW)
    assert principal.tenant == "acme"
    assert (principal.subject, principal.name, principal.token) == ("ann", "Ann", "t1")
    assert principal.expires == NOW + 60
    assert principal.grants == (Grant("a-*", ("speak", "listen")), Grant("b:1", ("admin",)))


def test_without_rooms_a_token_gives_no_right_at_all() -> None:
    principal = verify(good(rooms=None), TENANTS, NOW)
    assert (principal.subject, principal.name, principal.token) == ("", "", "")
    assert not principal.may("a", "listen")


@pytest.mark.parametrize("algorithm", ["HS256", *ALGORITHMS])
def test_every_algorithm_verifies_with_the_key_that_kid_names(algorithm: str) -> None:
    key = SECRET if algorithm == "HS256" else private(algorithm)
    token = good(key=key, algorithm=algorithm, headers={"kid": algorithm}, tenant="many")
    assert verify(token, TENANTS, NOW).tenant == "many"
    for other in {"HS256", *ALGORITHMS} - {algorithm}:
        swapped = good(key=key, algorithm=algorithm, headers={"kid": other}, tenant="many")
        assert refusal(swapped) == tokens.UNSIGNED

    nameless = good(key=key, algorithm=algorithm, tenant="many")
    assert verify(nameless, TENANTS, NOW).kid == algorithm


def test_a_token_without_a_kid_is_tried_with_the_keys_of_its_algorithm() -> None:
    for secret, kid in ((SECRET, "old"), (OTHER_SECRET, "new")):
        assert verify(good(key=secret, tenant="two"), TENANTS, NOW).kid == kid

    assert refusal(good(key="x" * 32, tenant="two")) == tokens.UNSIGNED
    forged = forge({"alg": "HS256"}, pem("RS256").encode(), tenant="two", exp=NOW + 9)
    assert refusal(forged) == tokens.UNSIGNED
    assert refusal(forge({"alg": "RS256"}, tenant="two", exp=NOW + 9)) == tokens.UNSIGNED


def test_of_too_many_keys_a_token_must_name_its_own() -> None:
    for number in (1, 4):
        secret = f"{number}{SECRET}"
        assert verify(good(key=secret, tenant="four"), TENANTS, NOW).kid == str(number % 4)
        assert refusal(good(key=secret, tenant="five")) == tokens.UNNAMED
        headers = {"kid": str(number)}
        assert verify(good(key=secret, tenant="five", headers=headers), TENANTS, NOW).kid


def test_the_clocks_may_differ_by_the_leeway() -> None:
    verify(good(exp=NOW - 29), TENANTS, NOW)
    assert refusal(good(exp=NOW - 30)) == tokens.EXPIRED
    verify(good(nbf=NOW + 30), TENANTS, NOW)
    assert refusal(good(nbf=NOW + 31)) == tokens.EARLY


def test_an_address_or_a_key_in_the_header_is_not_looked_at() -> None:
    headers = dict.fromkeys(("jku", "x5u"), "http://127.0.0.1:1/") | {"jwk": {"kty": "oct"}}
    verify(good(headers=headers), TENANTS, NOW)
    assert refusal(good(key=OTHER_SECRET, headers=headers)) == tokens.UNSIGNED


def test_a_token_is_for_the_audience_of_its_tenant() -> None:
    named: tuple[Any, ...] = ("roomcast", ["x", "roomcast"])
    for aud in named:
        verify(good(key=OTHER_SECRET, tenant="other", aud=aud), TENANTS, NOW)

    others: tuple[Any, ...] = ("x", ["x"])
    for aud in others:
        assert refusal(good(key=OTHER_SECRET, tenant="other", aud=aud)) == tokens.AUDIENCE

    for aud in (None, []):
        assert refusal(good(key=OTHER_SECRET, tenant="other", aud=aud)) == tokens.NO_AUDIENCE

    assert refusal(good(aud="roomcast")) == tokens.AUDIENCE


def without_signature(token: str) -> str:
    """Cut the signature off."""
    return token.rpartition(".")[0] + "."


def raw(header: bytes, payload: bytes) -> str:
    """Join any bytes to what has the form of a token."""
    return f"{part(header)}.{part(payload)}.AAAA"


def with_last(token: str, signature: bytes) -> str:
    """Put another signature."""
    return without_signature(token) + part(signature)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "", tokens.MALFORMED),
        (lambda: "a.b", tokens.MALFORMED),
        (lambda: "a.b.c.d", tokens.MALFORMED),
        (lambda: good() + "=", tokens.MALFORMED),
        (lambda: good() + "\n", tokens.MALFORMED),
        (lambda: " " + good(), tokens.MALFORMED),
        (lambda: "é" + good(), tokens.MALFORMED),
        (lambda: good().replace(".", ".+", 1), tokens.MALFORMED),
        (lambda: raw(b"no JSON", b"{}"), tokens.BAD_HEADER),
        (lambda: "x" * 9000, tokens.TOO_LONG),
        (lambda: good(name="x" * 9000), tokens.TOO_LONG),
        (lambda: good(headers={"x": "x" * 800}), tokens.MALFORMED),
        (lambda: without_signature(good()), tokens.MALFORMED),
        (lambda: with_last(good(), bytes(32)), tokens.UNSIGNED),
        (lambda: with_last(good(), b"x"), tokens.UNSIGNED),
        (lambda: raw(b"[" * 700, b"{}"), tokens.BAD_HEADER),
        (lambda: raw(b"{}", b"{}"), tokens.BAD_HEADER),
        (lambda: raw(b'{"alg":"HS256"}', b"[" * 4000), tokens.BAD_CLAIMS),
        (lambda: good(key=OTHER_SECRET), tokens.UNSIGNED),
        (lambda: good(tenant="other"), tokens.UNSIGNED),
        (lambda: good(tenant="nobody"), tokens.UNSIGNED),
        (lambda: good(tenant=None), tokens.BAD_TENANT),
        (lambda: good(tenant=""), tokens.BAD_TENANT),
        (lambda: good(tenant=["acme"]), tokens.BAD_TENANT),
        (lambda: good(exp=None), tokens.BAD_EXPIRY),
        (lambda: forge({"alg": "HS256"}, exp="9999999999"), tokens.BAD_EXPIRY),
        (lambda: forge({"alg": "HS256"}, exp=1e300), tokens.BAD_EXPIRY),
        (lambda: forge({"alg": "HS256"}, exp=True), tokens.BAD_EXPIRY),
        (lambda: forge({"alg": "HS256"}, exp=NOW + 9, nbf="soon"), bad_claim("nbf")),
        (lambda: good(sub="x" * 129), bad_claim("sub")),
        (lambda: forge({"alg": "HS256"}, exp=NOW + 9, sub=7), bad_claim("sub")),
        (lambda: good(name="x" * 65), bad_claim("name")),
        (lambda: good(jti="x" * 129), bad_claim("jti")),
        (lambda: forge({"alg": "HS256"}, exp=NOW + 9, aud=7), bad_claim("aud")),
        (lambda: raw(b'{"alg":"HS256"}', b"[]"), tokens.BAD_CLAIMS),
        (lambda: good(headers={"kid": "other"}), tokens.NO_KEY),
        (lambda: good(headers={"kid": "main"}, tenant="nobody"), tokens.NO_KEY),
        (lambda: forge({"alg": "HS256", "kid": 7}, exp=NOW + 9), tokens.BAD_HEADER),
        (lambda: forge({"alg": "HS256", "kid": "x" * 129}, exp=NOW + 9), tokens.BAD_HEADER),
        (lambda: good(headers={"kid": "../../etc/passwd"}), tokens.NO_KEY),
        (lambda: forge({"alg": "HS512"}, exp=NOW + 9), tokens.UNSIGNED),
        (lambda: good(key=None, algorithm="none"), tokens.MALFORMED),
        (lambda: forge({"alg": "none"}, exp=NOW + 9), tokens.UNSIGNED),
        (lambda: forge({"alg": "NONE"}, exp=NOW + 9), tokens.UNSIGNED),
        (lambda: forge({"alg": "RS256"}, exp=NOW + 9), tokens.UNSIGNED),
        (lambda: confused("HS256"), tokens.UNSIGNED),
        (lambda: confused("RS256"), tokens.UNSIGNED),
        (lambda: forge({"alg": "HS256", "crit": ["b64"], "b64": False}), tokens.CRITICAL),
        (lambda: forge({"alg": "HS256", "crit": None}), tokens.CRITICAL),
    ],
)
def test_a_bad_token_is_refused_for_its_cause(make: Make, said: str) -> None:
    assert refusal(make()) == said


def confused(algorithm: str) -> str:
    """Make a token whose MAC has the public key of RS256 as its secret."""
    return forge({"alg": algorithm}, pem("RS256").encode(), tenant="public", exp=NOW + 9)


GOOD_ROOM = {"room": "a", "can": ["listen"]}


@pytest.mark.parametrize(
    ("rooms", "place"),
    [
        ("*", ""),
        ({"pattern": "*", "can": ["speak"]}, ""),
        ([GOOD_ROOM] * 65, ""),
        (["*"], "[0]"),
        ([{"pattern": "*"}], "[0]"),
        ([{"can": ["speak"]}], "[0]"),
        ([{"pattern": "*", "room": "a", "can": ["speak"]}], "[0]"),
        ([{"pattern": "*", "can": "speak"}], "[0].can"),
        ([*[GOOD_ROOM] * 3, {"pattern": "*", "can": ["fly"]}], "[3].can[0]"),
        ([{"pattern": "*", "can": ["listen", "fly"]}], "[0].can[1]"),
        ([{"pattern": "*", "can": ["speak"] * 17}], "[0].can"),
        ([{"pattern": "a b", "can": ["speak"]}], "[0].pattern"),
        ([{"pattern": "", "can": ["speak"]}], "[0].pattern"),
        ([{"pattern": "a\n", "can": ["speak"]}], "[0].pattern"),
        ([{"pattern": "x" * 129, "can": ["speak"]}], "[0].pattern"),
        ([{"pattern": "acme/a", "can": ["speak"]}], "[0].pattern"),
        ([GOOD_ROOM, {"room": "*", "can": ["speak"]}], "[1].room"),
        ([GOOD_ROOM | {"exp": 1}], "[0]"),
        ([GOOD_ROOM | {"x` - at `$.canary`": 1}], "[0]"),
        ([{"room": "a", "can": ["x` - at `$.canary`"]}], "[0].can[0]"),
    ],
)
def test_rooms_of_a_wrong_form_are_refused_by_their_place(rooms: Any, place: str) -> None:
    said = bad_claim(f"rooms{place}") if place else tokens.BAD_ROOMS
    assert refusal(good(rooms=rooms)) == said


@given(st.text() | st.lists(st.text(), min_size=3, max_size=3).map(".".join))
def test_any_text_is_refused(text: str) -> None:
    refusal(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("alg", "kid", "crit", "jku"), JSON)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(claims(), JSON) | {"sub": JSON}),
    st.binary(max_size=80),
)
def test_any_header_any_claims_and_any_signature_are_refused(
    header: dict[str, Any], said: dict[str, Any], signature: bytes
) -> None:
    merged = {"tenant": "many", "exp": NOW + 9} | said
    for named in (header, {"alg": "HS256", "kid": "HS256"} | header):
        parts = (msgspec.json.encode(named), msgspec.json.encode(merged), signature)
        refusal(".".join(map(part, parts)))


@given(st.sampled_from(("HS256", *ALGORITHMS)), st.binary(max_size=300) | st.just(64 * b"\xff"))
def test_any_signature_of_a_good_token_is_refused(algorithm: str, signature: bytes) -> None:
    header = msgspec.json.encode({"alg": algorithm, "kid": algorithm})
    payload = msgspec.json.encode(claims(tenant="many", exp=NOW + 9))
    refusal(".".join(map(part, (header, payload, signature or b"x"))))


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    token = good()
    at = data.draw(st.integers(0, len(token) - 2))  # the last character has bits to spare
    other = data.draw(st.sampled_from("AaZz09-_.= \0é").filter(lambda each: each != token[at]))
    refusal(token[:at] + other + token[at + 1 :])
