"""The settings of the fronts: the section `fronts`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.limits import Section


class VoskFront(Section, frozen=True):
    """The protocol of vosk-server, on a port of its own because its path says nothing."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """TCP port, on the host of the server; 0 keeps this front off."""
    room: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{0,128}$(?!\n)")] = ""
    """Room of everybody who names none; empty gives each connection a room of its own."""


class Fronts(Section, frozen=True):
    """Client protocols of other vendors."""

    vosk: VoskFront = VoskFront()
