"""The engines of a node: which one a session gets, and which ones stand in for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from actors.commands import Start
from actors.errors import Refused
from actors.messages import AudioSpec
from actors.ports import Decoder, Decoders, Engine

TELEPHONE = ("mulaw", "alaw")
"""Encodings whose usual rate is 8 kHz."""


class PcmOnly:
    """Decoders of a node that has none: it takes audio as it is."""

    def plan(self, spec: AudioSpec) -> AudioSpec:
        """Return the spec as it is; engines refuse what they cannot take."""
        return spec

    def open(self, spec: AudioSpec) -> Decoder | None:
        """Return None: nothing needs decoding."""
        return None


class Catalog:
    """Engines by name, their order of failover, and what decodes audio for them."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        failover: Sequence[str] = (),
        guest: Callable[[str], Engine] | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Let `failover` name who is tried in turn for a session that names no engine.

        Without it that is the first engine alone. `guest` returns the engine of an address that a
        client names; it raises Refused.
        """
        self.engines, self.decoders = engines, decoders or PcmOnly()
        self._order = [engines[name] for name in failover] or list(engines.values())[:1]
        self._guest = guest
        self.own: Callable[[str], Sequence[str]] = lambda tenant: ()
        """Names the only engines of a tenant, in their order of failover; none for all."""

    def choose(self, name: str, spec: AudioSpec, tenant: str = "") -> list[Engine]:
        """Return the engines to try in turn for such audio.

        Raises Refused("unknown_engine"), or Refused("unsupported_audio") of the first one if none
        takes it.
        """
        heard = self.decoders.plan(spec)
        fitting, refusals = [], []
        for engine in self._named(name, self.own(tenant)):
            try:
                engine.check(heard)
                fitting.append(engine)
            except Refused as refusal:
                refusals.append(refusal)

        if not fitting:
            raise refusals[0]

        return fitting

    def _named(self, name: str, own: Sequence[str]) -> list[Engine]:
        engines = {each: self.engines[each] for each in own} if own else self.engines
        if name in engines:
            return [engines[name]]

        if "://" in name and self._guest is not None and not own:
            return [self._guest(name)]

        order = list(engines.values()) if own else self._order
        if name or not order:
            known = ", ".join(engines)
            message = f"the engines here are: {known}"
            raise Refused("unknown_engine", message, "engine", "engines.enabled")

        return order


def spec_of(start: Start) -> AudioSpec:
    """Return how the audio of a session is encoded."""
    usual = 8000 if start.encoding in TELEPHONE else 16000
    rate = usual if start.rate is None else start.rate
    return AudioSpec(start.encoding, rate, start.channels, start.language)
