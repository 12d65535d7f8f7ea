"""Never more than the rate and the burst allow, and honest about the wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.quota import Bucket, Strikes

rates = st.floats(0.01, 1000)
bursts = st.floats(1, 1000)
steps = st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 1000)), max_size=50)


@given(rates, bursts, steps)
def test_no_stretch_of_time_gets_more_than_its_rate_and_one_burst(
    rate: float, burst: float, takes: list[tuple[float, float]]
) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now, taken = 0.0, [(0.0, 0.0)]
    for pause, amount in takes:
        now += pause
        if bucket.take(amount, now) == 0:
            taken.append((now, taken[-1][1] + amount))

    for index, (begin, before) in enumerate(taken):
        for end, after in taken[index:]:
            inside = after - (taken[index - 1][1] if index else before)
            assert inside <= (rate * (end - begin) + burst) * (1 + 1e-9)


@given(rates, bursts, steps)
def test_the_wait_is_right(rate: float, burst: float, takes: list[tuple[float, float]]) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now = 0.0
    for pause, amount in takes:
        now += pause
        wait = bucket.take(amount, now)
        if amount > burst:
            assert wait == math.inf
        elif wait:
            assert bucket.take(amount, now + wait * 0.99 - 1e-6) > 0
            now += wait * 1.01 + 1e-6
            assert bucket.take(amount, now) == 0


@given(rates, bursts, steps)
def test_who_waits_until_nothing_is_owed_gets_one_amount_more_than_rate_and_burst(
    rate: float, burst: float, spends: list[tuple[float, float]]
) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now, taken, largest = 0.0, [(0.0, 0.0)], 0.0
    for pause, amount in spends:
        now += pause
        wait = bucket.debt(now)
        if wait:
            now += wait * 1.01 + 1e-6
            assert bucket.debt(now) == 0
        else:
            largest = max(largest, amount)
            bucket.spend(amount, now)
            taken.append((now, taken[-1][1] + amount))

    for index, (begin, before) in enumerate(taken):
        for end, after in taken[index:]:
            inside = after - (taken[index - 1][1] if index else before)
            assert inside <= (rate * (end - begin) + burst + largest) * (1 + 1e-9)


def test_a_refused_amount_takes_nothing() -> None:
    bucket = Bucket(1, 10, 0.0)
    assert bucket.take(10, 0.0) == 0
    assert bucket.take(5, 0.0) == 5
    assert bucket.take(5, 2.0) == 3
    assert bucket.take(5, 5.0) == 0


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = Bucket(1, 2, 10.0)
    assert bucket.take(2, 10.0) == 0
    assert bucket.take(1, 0.0) == 1
    assert bucket.take(1, 10.5) == 0.5


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_bucket_that_never_gives_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Bucket(rate, burst, 0.0)


@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=40))
def test_a_strike_is_one_too_many_if_it_completes_the_number_within_the_time(
    most: int, pauses: list[float]
) -> None:
    strikes, times = Strikes(most, 60.0), [0.0]
    for pause in pauses:
        times.append(times[-1] + pause)
        recent = [each for each in times[1:] if times[-1] - each < 60.0]
        assert strikes.strike(times[-1]) is (len(recent) >= most)


def test_there_is_at_least_one_strike() -> None:
    with pytest.raises(ValueError, match="one strike"):
        Strikes(0, 60.0)
