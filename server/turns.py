"""What a request does in one turn of the event loop, everybody else waits for."""

from __future__ import annotations

from anyio.lowlevel import checkpoint


async def give_way() -> None:
    """Let what others wait for come between two parts of a request, of 0.1 ms or so each."""
    await checkpoint()
