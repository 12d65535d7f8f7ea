"""What many streams send leaves together, in order and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from server.engines.outbox import Outbox, outbox_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run where the engines run."""
    return "asyncio"


class Stream:
    """Sends what it has been given."""

    def __init__(self, name: str, sent: list[str], outbox: Outbox) -> None:
        self._name, self._sent, self._outbox = name, sent, outbox
        self._waiting = 0

    def send(self) -> None:
        """Have something to send."""
        self._waiting += 1
        if self._waiting == 1:
            self._outbox.add(self)

    def release(self) -> None:
        """Send it."""
        self._sent += [self._name] * self._waiting
        self._waiting = 0


async def test_what_comes_within_the_time_leaves_together_and_the_rest_later() -> None:
    loop = asyncio.get_running_loop()
    outbox, sent = Outbox(loop, 0.01), list[str]()
    a, b = (Stream(name, sent, outbox) for name in "ab")
    for each in (a, b, a):
        each.send()

    assert sent == []
    went = asyncio.Event()
    loop.call_later(0.01, went.set)
    await went.wait()
    assert sent == ["a", "a", "b"]
    b.send()
    went.clear()
    loop.call_later(0.02, went.set)
    await went.wait()
    assert sent == ["a", "a", "b", "b"]


class Clock:
    """A loop whose time is set, and whose calls are made by hand."""

    def __init__(self) -> None:
        self.now = 10.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []

    def time(self) -> float:
        """Return the time that was set."""
        return self.now

    def call_soon(self, call: Callable[[], None]) -> None:
        """Keep a call for the end of the turn."""
        self.soon.append(call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Keep a call for later."""
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]


class Timer:
    """A call for later."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call = at, call
        self.cancelled = False

    def cancel(self) -> None:
        """Have it not made."""
        self.cancelled = True


def test_a_turn_that_brings_more_takes_along_what_has_nearly_waited_enough() -> None:
    clock, sent = Clock(), list[str]()
    outbox = Outbox(cast(asyncio.AbstractEventLoop, clock), 0.005)
    a, b, c, d = (Stream(name, sent, outbox) for name in "abcd")
    a.send()
    clock.now += 0.003
    b.send()
    assert (clock.soon, sent) == ([], [])
    clock.now += 0.001
    c.send()
    d.send()
    assert sent == [], "not before the turn of the loop ends: more may come in it"
    assert [timer.cancelled for timer in clock.timers] == [True]
    assert len(clock.soon) == 1
    clock.soon.pop()()
    assert sent == ["a", "b", "c", "d"]
    a.send()
    assert [timer.cancelled for timer in clock.timers] == [True, False], "a batch of its own"
    assert clock.timers[-1].at == pytest.approx(clock.now + 0.005)
    clock.now += 0.005
    clock.timers[-1].call()
    assert sent == ["a", "b", "c", "d", "a"]


async def test_a_loop_has_one_for_each_time() -> None:
    loop = asyncio.get_running_loop()
    assert outbox_of(loop, 0.005) is outbox_of(loop, 0.005)
    assert outbox_of(loop, 0.005) is not outbox_of(loop, 0.0)
