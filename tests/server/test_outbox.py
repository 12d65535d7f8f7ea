"""What many streams send leaves together, in order and soon."""

from __future__ import annotations

import asyncio

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


async def test_a_loop_has_one_for_each_time() -> None:
    loop = asyncio.get_running_loop()
    assert outbox_of(loop, 0.005) is outbox_of(loop, 0.005)
    assert outbox_of(loop, 0.005) is not outbox_of(loop, 0.0)
