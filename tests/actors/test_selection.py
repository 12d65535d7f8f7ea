"""Rooms are selected by the grants, in slices, and the tenant's commands pay."""

from __future__ import annotations

import anyio
import pytest

from actors.meter import Meter
from actors.principal import Grant, Principal
from actors.quota import UNLIMITED, Quotas
from actors.selection import A_COMMAND, SLICE, select

pytestmark = pytest.mark.anyio
KEYS = [f"t/{name}-{number}" for number in range(1000) for name in ("a", "b")]


def somebody(*grants: Grant) -> Principal:
    """Make somebody with these rights."""
    return Principal("t", grants=grants)


def meter(quotas: Quotas = UNLIMITED) -> Meter:
    """Make the meter of the tenant."""
    return Meter("t", quotas, anyio.current_time())


async def selected(principal: Principal, quotas: Quotas = UNLIMITED) -> list[str]:
    """Select those to publish to."""
    found = select(principal, "publish", KEYS, meter(quotas), anyio.current_time)
    return [key async for key in found]


async def test_a_room_is_selected_if_one_grant_gives_the_right_in_it() -> None:
    listen, publish = Grant("b-*", ("listen",)), Grant("a-*", ("speak", "publish"))
    both = await selected(somebody(listen, publish, Grant("b-7", ("publish",))))
    assert both == [key for key in KEYS if key.startswith("t/a-") or key == "t/b-7"]
    assert await selected(somebody(Grant("**", ("publish",)))) == KEYS
    assert await selected(somebody(listen)) == []


async def test_others_have_their_turns_meanwhile() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await selected(somebody(*[Grant(f"{n}*x*", ("publish",)) for n in range(16)]))
        tasks.cancel_scope.cancel()

    assert turns >= len(KEYS) * 16 // SLICE - 2


async def test_what_it_costs_waits_among_the_commands_of_the_tenant() -> None:
    quotas = Quotas(commands_per_second=100, commands_burst=1)
    began = anyio.current_time()
    await selected(somebody(*[Grant(f"{n}*", ("publish",)) for n in range(64)]), quotas)
    commands = len(KEYS) * 64 / A_COMMAND
    assert anyio.current_time() - began == pytest.approx(commands / 100, rel=0.05)
    began = anyio.current_time()
    await selected(somebody(Grant("*", ("publish",))), quotas)
    assert anyio.current_time() == began
