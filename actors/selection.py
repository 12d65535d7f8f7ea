"""Which of a tenant's rooms somebody may do something in, without keeping the loop for all of them.

What it costs is rooms times patterns, and the tenant's commands pay for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from anyio.lowlevel import checkpoint

from actors.meter import Meter
from actors.principal import Capability, Principal, matches

SLICE = 256
"""Rooms times patterns after which others have their turn."""
A_COMMAND = 64.0
"""Rooms times patterns that cost as much as a command."""


async def select(
    principal: Principal,
    capability: Capability,
    keys: Iterable[str],
    meter: Meter,
    monotonic: Callable[[], float],
) -> AsyncIterator[str]:
    """Yield the keys of the rooms in which a grant gives a capability, in their order."""
    patterns = principal.patterns(capability)
    everywhere = any(not each.strip("*") for each in patterns)
    cost = 1 if everywhere else max(1, len(patterns))
    spent = 0
    for key in keys:
        spent += cost
        if spent >= SLICE:
            if not everywhere:
                await meter.commands.turn(monotonic, spent / A_COMMAND)

            spent = 0
            await checkpoint()

        room = key.partition("/")[2]
        if everywhere or any(matches(each, room) for each in patterns):
            yield key
