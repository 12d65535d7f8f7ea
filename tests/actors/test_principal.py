"""What a principal may do, and where."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.principal import CAPABILITIES, EVERYTHING, Capability, Grant, Principal, matches

names = st.text("ab.-", max_size=12)
patterns = st.text("ab.-*", max_size=8)
tenants = st.text("ab/", min_size=1, max_size=4)
grants = st.builds(Grant, patterns, st.lists(st.sampled_from(CAPABILITIES), max_size=3).map(tuple))


def reference(pattern: str, name: str) -> bool:
    """Match as the standard library does."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


@given(patterns, names)
def test_a_pattern_matches_as_the_reference_does(pattern: str, name: str) -> None:
    assert matches(pattern, name) is reference(pattern, name)


@given(st.lists(names, min_size=2, max_size=4), st.data())
def test_a_pattern_matches_what_it_was_made_from(pieces: list[str], data: st.DataObject) -> None:
    name = pieces[0] + "".join(data.draw(names) + piece for piece in pieces[1:])
    assert matches("*".join(pieces), name)


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("a", "a", True),
        ("a", "ab", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*ba", "aba", False),
        ("[ab]", "a", False),
        ("?", "a", False),
        ("a.b", "axb", False),
    ],
)
def test_only_a_star_stands_for_anything_else(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) is found


@pytest.mark.parametrize("pattern", ["*a" * 60 + "*c*b", "*a" * 4000 + "*b", "*" * 8000 + "c*b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    name, began = "a" * 127 + "b", time.perf_counter()
    for _ in range(10):
        assert not matches(pattern, name)

    # Milliseconds in truth; a matcher that backtracks would not end at all.
    assert time.perf_counter() - began < 2


@given(st.lists(grants, max_size=3), names, st.sampled_from(CAPABILITIES))
def test_one_grant_must_give_both_the_room_and_the_capability(
    given_grants: list[Grant], room: str, capability: Capability
) -> None:
    may = Principal("t", grants=tuple(given_grants)).may(room, capability)
    assert may is any(
        reference(each.pattern, room) and capability in each.capabilities for each in given_grants
    )


@given(tenants, tenants, names, names)
def test_no_two_tenants_share_a_key(one: str, other: str, room: str, another: str) -> None:
    same = (one, room) == (other, another)
    assert (Principal(one).key(room) == Principal(other).key(another)) is same


def test_a_key_is_the_tenant_and_the_room() -> None:
    assert Principal("acme").key("a") == "acme/a"


@given(st.lists(grants, max_size=3), tenants, tenants, names)
def test_no_grant_covers_the_key_of_a_room(
    given_grants: list[Grant], mine: str, other: str, room: str
) -> None:
    principal = Principal(mine, grants=(*given_grants, EVERYTHING, Grant(f"{other}/*", ("speak",))))
    assert not any(principal.may(Principal(other).key(room), each) for each in CAPABILITIES)


def test_who_brings_no_token_may_do_everything_for_ever() -> None:
    principal = Principal("dev")
    assert all(principal.may("any:room", each) for each in CAPABILITIES)
    assert (principal.subject, principal.name, principal.token) == ("", "", "")
    assert principal.expires == math.inf


def test_who_has_no_grant_may_do_nothing() -> None:
    assert not any(Principal("t", grants=()).may("a", each) for each in CAPABILITIES)
