"""Who is revoked, for how long, and what happens when nobody more can be."""

from __future__ import annotations

import math

import pytest

from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.principal import Principal
from actors.revocation import KEEP, Name, Revocations

ANN = Principal("t", "ann", token="1", kid="2026")
SUBJECT: set[Name] = {("subject", "ann")}
TOKEN: set[Name] = {("token", "1")}
KEY: set[Name] = {("key", "2026")}


@pytest.mark.parametrize(
    ("names", "principal", "revoked"),
    [
        (SUBJECT, ANN, True),
        (SUBJECT, Principal("t", "ann", token="2"), True),
        (SUBJECT, Principal("t", "bob", token="1"), False),
        (SUBJECT, Principal("t", "", token="ann"), False),
        (SUBJECT, Principal("other", "ann", token="1"), False),
        (TOKEN, ANN, True),
        (TOKEN, Principal("t", "bob", token="1"), True),
        (TOKEN, Principal("t", "ann", token="2"), False),
        (TOKEN, Principal("t", "1"), False),
        (TOKEN, Principal("other", "ann", token="1"), False),
        (KEY, ANN, True),
        (KEY, Principal("t", "bob", kid="2026"), True),
        (KEY, Principal("t", "2026", token="2026", kid="2027"), False),
        (KEY, Principal("other", "ann", kid="2026"), False),
        (SUBJECT | TOKEN | KEY, Principal("t"), False),
    ],
)
def test_a_name_is_revoked_within_its_tenant(
    names: set[Name], principal: Principal, revoked: bool
) -> None:
    revocations = Revocations(10)
    revocations.add("t", names, 0.0, 1000.0)
    assert revocations.revoked(principal, 1000.0) is revoked


def test_a_revocation_lasts_as_long_as_any_token_may() -> None:
    revocations = Revocations(10)
    revocations.add("t", SUBJECT, 0.0, 1000.0)
    assert revocations.until("t", ("subject", "ann")) == 1000.0 + KEEP + LEEWAY
    assert revocations.until("t", ("token", "1")) == revocations.until("u", ("key", "")) == 0.0
    assert revocations.revoked(ANN, 1000.0 + KEEP + LEEWAY - 1)
    assert not revocations.revoked(ANN, 1000.0 + KEEP + LEEWAY)


def test_a_live_token_that_lives_longer_keeps_it_longer() -> None:
    revocations = Revocations(10)
    revocations.add("t", TOKEN, 1e9, 1000.0)
    revocations.add("t", TOKEN, 0.0, 1000.0)
    assert revocations.revoked(ANN, 1e9)
    revocations.add("t", TOKEN, math.inf, 1000.0)
    assert revocations.revoked(ANN, 1e18)


def test_a_full_list_refuses_and_forgets_nobody() -> None:
    revocations = Revocations(2)
    revocations.add("t", SUBJECT, 0.0, 1000.0)
    with pytest.raises(Refused) as refusal:
        revocations.add("t", {("subject", "bob"), ("token", "1")}, 0.0, 1000.0)

    assert (refusal.value.code, refusal.value.setting) == ("limit_exceeded", "limits.revocations")
    assert revocations.revoked(ANN, 1000.0)
    assert not revocations.revoked(Principal("t", "bob"), 1000.0)
    revocations.add("t", SUBJECT | TOKEN, 0.0, 1000.0)
    assert len(revocations) == 2


def test_another_tenant_is_not_affected_by_a_full_list() -> None:
    revocations = Revocations(1)
    revocations.add("t", SUBJECT, 0.0, 1000.0)
    revocations.add("other", SUBJECT, 0.0, 1000.0)
    assert len(revocations) == 2


def test_what_has_run_out_makes_room() -> None:
    revocations = Revocations(1)
    revocations.add("t", SUBJECT, 0.0, 1000.0)
    revocations.add("t", TOKEN, 0.0, 1000.0 + KEEP + LEEWAY)
    assert len(revocations) == 1
    assert revocations.revoked(ANN, 1000.0 + KEEP + LEEWAY)


def test_nothing_to_revoke_leaves_no_trace() -> None:
    revocations = Revocations(1)
    revocations.add("t", set(), 0.0, 1000.0)
    assert len(revocations) == 0
