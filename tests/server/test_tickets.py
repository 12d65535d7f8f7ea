"""Tickets by a clock that is a number: once, for a moment, and not too many."""

from __future__ import annotations

import pytest

from actors.errors import Refused
from actors.expiry import LEEWAY
from actors.principal import Principal
from server.tickets import BYTES, SPENT, Tickets

ANN = Principal("t", "ann")


def spent(tickets: Tickets, ticket: str, now: float) -> bool:
    """Return whether a ticket is refused, in the one sentence for all that are no good."""
    try:
        tickets.redeem(ticket, now)
    except Refused as refused:
        return (refused.code, refused.message) == ("unauthorized", SPENT)

    return False


def test_a_ticket_is_good_once() -> None:
    tickets = Tickets(10)
    ticket = tickets.issue(ANN, 30, 0)
    assert len(ticket) == BYTES * 4 // 3 + 1
    assert tickets.redeem(ticket, 29) == ANN
    assert spent(tickets, ticket, 29)
    assert len(tickets) == 0


@pytest.mark.parametrize(
    ("expires", "now", "late"),
    [(99.0, 29.9, False), (99.0, 30.0, True), (-10.0, 19.9, False), (-10.0, 20.0, True)],
)
def test_a_ticket_is_good_for_its_time_and_no_longer_than_its_maker(
    expires: float, now: float, late: bool
) -> None:
    tickets = Tickets(10)
    ann = Principal("t", "ann", expires=expires)
    assert spent(tickets, tickets.issue(ann, 30, 0), now) is late
    assert len(tickets) == 0
    assert LEEWAY == 30


@pytest.mark.parametrize("ticket", ["", "x", "\x00", "ä" * 9000])
def test_what_is_no_ticket_is_refused(ticket: str) -> None:
    assert spent(Tickets(10), ticket, 0)


def test_one_too_many_is_refused_and_no_other_tenant_notices() -> None:
    tickets = Tickets(2)
    kept = [tickets.issue(ANN, ttl, 0) for ttl in (5, 30)]
    with pytest.raises(Refused) as refusal:
        tickets.issue(ANN, 30, 4)

    assert (refusal.value.status, refusal.value.setting) == (503, "limits.tickets")
    assert not spent(tickets, tickets.issue(Principal("u"), 30, 4), 4)
    tickets.issue(ANN, 1, 5)
    assert spent(tickets, kept[0], 5)
    assert not spent(tickets, kept[1], 5)
    tickets.sweep(6)
    assert len(tickets) == 0
