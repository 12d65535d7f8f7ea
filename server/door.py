"""Where every connection comes in: `http=` of the server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from server.auth import site_of
from server.forwarded import trusts
from server.http import HardenedHttp
from server.node import Node


class Door(asyncio.Protocol):
    """Cuts the connections of addresses that are deaf to refusals, and hands over all others.

    A refusal costs ten times as much as this.
    """

    def __init__(self, app_state: dict[str, Any], **given: Any) -> None:
        """Take what uvicorn gives to each connection."""
        self._node: Node = app_state["node"]
        self._given = {"app_state": app_state, **given}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who is there."""
        if self._is_deaf(transport.get_extra_info("peername")):
            self._node.metrics.observer.cut()
            cast(asyncio.Transport, transport).abort()
            return

        protocol = HardenedHttp(**self._given)
        transport.set_protocol(protocol)
        protocol.connection_made(cast(asyncio.Transport, transport))

    def _is_deaf(self, peer: Any) -> bool:
        """A socket of UNIX has no address, and a proxy speaks for many."""
        if not isinstance(peer, tuple) or trusts(str(peer[0]), self._node.trusted):
            return False

        now = self._node.manager.clock.monotonic()
        return self._node.turnstile.is_deaf(site_of({"client": peer}), now)
