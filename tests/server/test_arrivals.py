"""How fast connections may be opened and wrong tokens brought: the arithmetic alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.limits import Arrivals
from actors.quota import Bucket
from server.arrivals import ADDRESSES, AREA, SWEEP_EVERY, UNBOUNDED, Limiter, Turnstile, area_of


def take(pace: Limiter, name: str, now: float) -> float:
    """Count once if it is allowed; return the seconds to wait."""
    wait = pace.wait(name, now)
    if not wait:
        pace.count(name, now)

    return wait


@given(
    rate=st.integers(1, 50),
    burst=st.integers(1, 20),
    steps=st.lists(st.integers(0, 3000), max_size=60),
)
def test_a_pace_allows_what_a_bucket_of_tokens_does(
    rate: int, burst: int, steps: list[int]
) -> None:
    pace, bucket, now = Limiter(rate, burst), Bucket(rate, burst, 0.0), 0.0
    for step in steps:
        now += step / 1024
        expected = bucket.take(1, now)
        assert math.isclose(take(pace, "a", now), expected, rel_tol=1e-6, abs_tol=1e-6)


def test_one_does_not_pay_for_another() -> None:
    pace = Limiter(1, 2)
    assert [take(pace, "a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert take(pace, "b", 0.0) == 0.0
    assert pace.wait("a", 1.0) == 0.0


def test_without_a_rate_nobody_is_bounded_and_nothing_kept() -> None:
    pace = Limiter(0, 1)
    assert not any(take(pace, "a", 0.0) for _ in range(1000))
    assert len(pace) == 0


def test_who_has_paid_makes_room_for_another() -> None:
    pace = Limiter(1, 1, most=2)
    assert [take(pace, name, 0.0) for name in "ab"] == [0.0, 0.0]
    assert take(pace, "c", 1.5) == 0.0
    assert len(pace) == 1
    assert take(pace, "a", 1.5) == 0.0


def test_those_who_find_no_room_count_together() -> None:
    pace = Limiter(1, 2, most=1)
    assert [take(pace, "a", 10.0) for _ in range(2)] == [0.0, 0.0]
    assert [take(pace, name, 10.0) for name in "bcd"] == [0.0, 0.0, 1.0]
    assert len(pace) == 1
    assert take(pace, "a", 11.0) == 0.0
    assert take(pace, "d", 12.0) == 0.0


def test_a_full_table_is_not_looked_through_for_each_stranger() -> None:
    pace = Limiter(1000, 1, most=2)
    for name in "ab":
        pace.count(name, 10.0)

    pace.count("c", 10.0)
    pace.count("d", 10.0 + SWEEP_EVERY / 2)
    assert len(pace) == 2
    pace.count("e", 10.0 + SWEEP_EVERY)
    assert len(pace) == 1


def test_a_flood_from_everywhere_is_remembered_of_so_many_only() -> None:
    pace = Limiter(0.001, 1)
    for number in range(2 * ADDRESSES):
        pace.count(str(number), number / 1000)

    assert len(pace) == ADDRESSES


def refusals(turnstile: Turnstile, addresses: list[str], now: float) -> int:
    """Let one arrive from each of these; return how many were refused."""
    count = 0
    for address in addresses:
        try:
            turnstile.arrive(address, now)
        except Refused:
            count += 1

    return count


def test_an_address_has_a_pace() -> None:
    turnstile = Turnstile(Arrivals(per_address=1, per_address_burst=2))
    turnstile.arrive("a", 0.0)
    turnstile.arrive("a", 0.0)
    for _ in range(5):
        with pytest.raises(Refused) as one:
            turnstile.arrive("a", 0.0)

    assert (one.value.code, one.value.retry_after) == ("rate_limited", 1.0)
    assert one.value.setting == "limits.arrivals.per_address"
    turnstile.arrive("b", 0.0)


def test_a_node_has_a_pace_for_those_it_knows_and_half_of_it_for_strangers() -> None:
    turnstile = Turnstile(Arrivals(per_node=2, per_node_burst=4))
    for known, burst, wait in ((False, 2, 1.0), (True, 4, 0.5)):
        for _ in range(burst):
            turnstile.enter(known, 0.0)

        with pytest.raises(Refused) as many:
            turnstile.enter(known, 0.0)

        assert (many.value.code, many.value.retry_after) == ("overload", wait)
        assert many.value.setting == "limits.arrivals.per_node"
        turnstile.enter(known, wait)


FROM_A_48 = [f"2001:db8:0:{number:x}::/64" for number in range(256)]


def test_a_48_may_do_as_much_as_five_addresses() -> None:
    turnstile = Turnstile(Arrivals(per_address=2, per_address_burst=4))
    assert refusals(turnstile, FROM_A_48, 0.0) == len(FROM_A_48) - AREA * 4
    assert refusals(turnstile, ["2001:db8:1::/64", "192.0.2.1"], 0.0) == 0
    assert refusals(turnstile, FROM_A_48[30:50], 1.0) == 20 - AREA * 2


def test_a_48_that_goes_on_is_deaf_as_a_whole() -> None:
    limits = Arrivals(per_address=1, per_address_burst=1, refusals_per_address=1, refusals_burst=4)
    turnstile = Turnstile(limits)
    refusals(turnstile, FROM_A_48, 0.0)
    assert all(turnstile.is_deaf(each, 0.0) for each in FROM_A_48)
    assert not turnstile.is_deaf("2001:db8:1::/64", 0.0)
    assert not turnstile.is_deaf(FROM_A_48[0], 60.0)


@pytest.mark.parametrize("address", ["192.0.2.1", "", "unknown", "fe80::1%eth0", "nonsense:"])
def test_what_is_no_64_is_in_no_48(address: str) -> None:
    assert area_of(address) == ""
    assert area_of("2001:db8:7:8::/64") == "2001:db8:7::/48"


def test_failures_bar_an_address_until_they_are_paid_for() -> None:
    turnstile = Turnstile(Arrivals(failures_per_address=2, failures_burst=3))
    for _ in range(3):
        turnstile.check_failures("a", 0.0)
        turnstile.failed("a", 0.0)

    with pytest.raises(Refused) as barred:
        turnstile.check_failures("a", 0.0)

    assert (barred.value.code, barred.value.retry_after) == ("rate_limited", 0.5)
    assert barred.value.setting == "limits.arrivals.failures_per_address"
    turnstile.check_failures("b", 0.0)
    turnstile.check_failures("a", 0.5)


def test_who_goes_on_though_it_is_refused_is_deaf_until_it_has_been_still() -> None:
    limits = Arrivals(per_address=1, per_address_burst=1, refusals_per_address=2, refusals_burst=3)
    turnstile = Turnstile(limits)
    turnstile.arrive("a", 0.0)
    for _ in range(3):
        assert not turnstile.is_deaf("a", 0.0)
        with pytest.raises(Refused):
            turnstile.arrive("a", 0.0)

    assert turnstile.is_deaf("a", 0.0)
    assert not turnstile.is_deaf("b", 0.0)
    assert not turnstile.is_deaf("a", 0.5)


def test_refusals_of_wrong_tokens_make_deaf_too() -> None:
    turnstile = Turnstile(Arrivals(failures_per_address=1, failures_burst=1, refusals_burst=2))
    turnstile.failed("a", 0.0)
    for _ in range(2):
        with pytest.raises(Refused):
            turnstile.check_failures("a", 0.0)

    assert turnstile.is_deaf("a", 0.0)


def test_where_nothing_is_bounded_nothing_is_refused() -> None:
    turnstile = Turnstile(UNBOUNDED)
    for _ in range(5000):
        turnstile.arrive("2001:db8::/64", 0.0)
        turnstile.enter(True, 0.0)
        turnstile.enter(False, 0.0)
        turnstile.failed("a", 0.0)

    turnstile.check_failures("a", 0.0)
    assert not turnstile.is_deaf("a", 0.0)
