"""Engines that a client names by address, as in `engine=wss://HOST/PATH`.

Its one rule: the server connects to no host that the settings do not list. The address is read once
and strictly; what was looked at is what is dialled, and no redirect leads away from it.
"""

from __future__ import annotations

from actors.errors import Refused
from server.engines.address import Address, allows, parse
from server.engines.mapped import MappedDialect
from server.engines.options import WebSocket
from server.engines.remote import RemoteEngine, Slots

SETTING = "engines.websocket.hosts"


class Guests:
    """Makes engines for the addresses that clients may name."""

    def __init__(self, options: WebSocket, slots: Slots | None = None) -> None:
        """Share the slots with the engine of the settings' own address, if there is one."""
        self._options = options
        self._slots = slots or Slots(options.max_streams)

    def engine(self, url: str) -> RemoteEngine:
        """Return the engine behind an address. Raises Refused("engine_forbidden")."""
        address = self._admit(url)
        options = self._options
        return RemoteEngine(
            "websocket",
            self._slots,
            options.connection,
            lambda spec: MappedDialect(options, spec, address),
        )

    def _admit(self, url: str) -> Address:
        try:
            address = parse(url)
        except ValueError as error:
            raise _forbidden(f"the engine's address is not taken: {error}") from None

        if not any(allows(entry, address) for entry in self._options.hosts):
            raise _forbidden(f"{SETTING} does not list the host of the engine's address")

        return address


def _forbidden(message: str) -> Refused:
    return Refused("engine_forbidden", message, "engine", SETTING)
