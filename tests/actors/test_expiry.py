"""Who is due in which second, whatever the clock does."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from actors.expiry import LEEWAY, Expiries

NOW = 1_700_000_000
steps = st.lists(
    st.one_of(
        st.tuples(st.just("watch"), st.integers(0, 4), st.floats(-60, 90) | st.just(math.inf)),
        st.tuples(st.just("forget"), st.integers(0, 4), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 40)),
        st.tuples(st.just("jump"), st.just(0), st.sampled_from([-1e5, -50.0, 5e4, 1e9])),
    ),
    max_size=40,
)


@given(steps)
def test_everybody_is_due_once_at_the_first_look_after_the_leeway(
    script: list[tuple[str, int, float]],
) -> None:
    expiries: Expiries[int] = Expiries()
    model: dict[int, int] = {}
    now, looked = float(NOW), 0
    for verb, who, number in script:
        if verb == "watch":
            expiries.watch(who, now + number)
            model.pop(who, None)
            if number < math.inf:
                model[who] = max(math.ceil(now + number + LEEWAY), looked + 1)
        elif verb == "forget":
            expiries.forget(who)
            model.pop(who, None)
        else:
            now += number
            looked = math.floor(now)
            late = {each for each, second in model.items() if second <= looked}
            assert sorted(expiries.due(now)) == sorted(late)
            model = {each: second for each, second in model.items() if each not in late}

        assert len(expiries) == len(model)
        assert len(expiries._buckets) == len(set(model.values()))


def test_who_never_expires_is_not_in_it() -> None:
    expiries: Expiries[str] = Expiries()
    expiries.watch("for ever", math.inf)
    assert len(expiries) == 0
    expiries.watch("a while", NOW + 60.0)
    expiries.watch("a while", math.inf)
    assert (len(expiries), expiries.due(NOW + 1e6)) == (0, [])


def test_who_comes_late_is_due_at_the_next_look() -> None:
    expiries: Expiries[str] = Expiries()
    assert expiries.due(NOW + 0.5) == []
    expiries.watch("late", NOW - 100.0)
    assert expiries.due(NOW + 0.9) == []
    assert expiries.due(NOW + 1.0) == ["late"]
