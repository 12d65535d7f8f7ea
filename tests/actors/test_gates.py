"""One at a time through each gate."""

from __future__ import annotations

import anyio
import pytest

from actors.gates import Gates
from tests.autojump import settle

pytestmark = pytest.mark.anyio


async def test_who_wants_the_same_waits_in_order_and_who_wants_another_does_not() -> None:
    gates, seen = Gates(), list[str]()

    async def pass_through(name: str, who: str) -> None:
        async with gates.through(name):
            seen.append(who)
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        for name, who in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")):
            tasks.start_soon(pass_through, name, who)
            await settle()

        assert (sorted(seen), len(gates)) == (["1", "3"], 2)

    assert [each for each in seen if each != "3"] == ["1", "2", "4"]
    assert len(gates) == 0


async def test_who_gives_up_leaves_no_trace() -> None:
    gates = Gates()

    async def give_up() -> None:
        with anyio.move_on_after(1):
            async with gates.through("a"):
                pytest.fail("two at a time")

    async with gates.through("a"), anyio.create_task_group() as tasks:
        tasks.start_soon(give_up)
        await anyio.sleep(2)
        assert len(gates) == 1

    assert len(gates) == 0


async def test_who_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    gates, seen = Gates(), list[str]()
    scope = anyio.CancelScope()

    async def leave_at_once() -> None:
        with scope:
            async with gates.through("a"):
                seen.append("left")

    async def follow() -> None:
        async with gates.through("a"):
            seen.append("followed")

    async with anyio.create_task_group() as tasks:
        async with gates.through("a"):
            for each in (leave_at_once, follow):
                tasks.start_soon(each)
                await settle()

        scope.cancel()

    assert seen[-1] == "followed"
    assert len(gates) == 0
