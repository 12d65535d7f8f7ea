"""The actor of a front: a connection whose messages go through a translator.

Its events reach it by `tell` alone, for it joins no room; so rooms, sessions, mailbox and
transports are those of every other connection.
"""

from __future__ import annotations

import asyncio

import anyio

from actors.commands import Start
from actors.connection import ConnectionActor, Hub
from actors.errors import IDLE, Close, Refused
from actors.messages import AnyEvent
from actors.ports import Transport
from actors.principal import Principal
from actors.refusals import check_size
from actors.wire import Burst
from server.fronts.translator import Drained, Say, Step, Touch, Translator

CUT_AFTER = 1.5
"""Seconds from our close frame to the cut: SDKs go on sending, and do not hang up by themselves."""


class FrontActor(ConnectionActor):
    """One connection of another vendor's client."""

    __slots__ = ("_changed", "_timer", "_translator")

    def __init__(
        self,
        name: str,
        principal: Principal,
        transport: Transport,
        hub: Hub,
        translator: Translator,
    ) -> None:
        """Make a speaker's connection."""
        super().__init__(name, "speak", principal, transport, hub)
        self._translator = translator
        self._changed: anyio.Event | None = None
        """Set by what may have answered the message that is worked on; absent while none is."""
        self._timer: asyncio.TimerHandle | None = None
        if translator.first is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(hub.limits.speech_idle, self._give_up)

    async def receive(self, data: str | bytes) -> None:
        """Act on one message, and wait until it is answered if it must be before the next."""
        if self.open:
            await self._attempt(self._translate(data))

    def receive_nowait(self, data: str | bytes) -> bool:
        """Pass audio on if that needs no waiting; False says that it needs `receive`."""
        if not self.lifecycle.connected:
            return True

        translator, microphone = self._translator, self.microphone
        session = None if microphone is None else microphone.session
        if (
            not translator.direct
            or session is None
            or session.ending
            or not data
            or not isinstance(data, bytes)
            or len(data) > self._hub.limits.audio_bytes
            or not session.intake.hear_nowait(data)  # past the microphone: each call costs
        ):
            return False

        if translator.counts:
            translator.heard(data)

        return True

    def tell(self, event: AnyEvent) -> None:
        """Say an event in the words of the vendor."""
        self._say(list(self._translator.tell(event)))
        self._wake()

    def condemn(self, close: Close) -> bool:
        """Obey nothing any more, and see that it is over soon. The first reason wins."""
        if self.open:
            if self._timer is not None:
                self._timer.cancel()

            asyncio.get_running_loop().call_later(CUT_AFTER, self._cut)
            if self.microphone is not None and self.microphone.session is not None:
                # No client of another protocol could resume it.
                self.microphone.session.abandon(self._hub.limits.upstream.end_within)

        return super().condemn(close)

    def depart(self) -> None:
        """Say goodbye, and end the socket."""
        super().depart()
        self._wake()

    def farewell(self, close: Close) -> Close:
        """End in the codes of the vendor."""
        return self._translator.end(close)

    async def _translate(self, data: str | bytes) -> None:
        check_size(data, self._hub.limits)
        if isinstance(data, str) and not self._at_once():
            await self._turn()

        translator = self._translator
        steps = translator.read(data) if isinstance(data, str) else translator.hear(data)
        for step in steps:
            if self.open:
                await self._take(step)

        while self.open and translator.busy:
            self._changed = anyio.Event()
            await self._changed.wait()  # every flush is answered, or else the connection ends

    async def _take(self, step: Step) -> None:
        match step:
            case Say():
                self._say([step])
            case Close():
                self.close(step)
            case Refused():
                self.refuse(step)
            case Touch():
                self._touch()
            case Drained(reply=reply):
                await self._drained()
                if self.open:
                    self._say(list(reply()))
            case bytes():
                await super().receive(step)
            case Start():
                await self.begin(step)
            case _:
                await self.obey(step)

    def _say(self, words: list[Say]) -> None:
        if words:
            self.send(Burst(words))

    def _touch(self) -> None:
        """Count the client's word as a sign of life, though it is no audio."""
        if self.microphone is not None and self.microphone.session is not None:
            self.microphone.session.keep_alive()

    async def _drained(self) -> None:
        """Wait until the engine has taken what it was sent."""
        if self.microphone is not None and self.microphone.session is not None:
            await self.microphone.session.intake.drained()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _give_up(self) -> None:
        """End a connection that has never begun to speak; a session has its own watch."""
        if self.microphone is None:
            limit = f"{self._hub.limits.speech_idle:g} seconds (limits.speech_idle)"
            self.close(IDLE.because(f"no audio for {limit}"))

    def _cut(self) -> None:
        """Cut a connection that has had its close frame; the sweep cuts one that has not."""
        if not self.egress:
            self.transport.abort()
