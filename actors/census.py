"""What is open on a node right now, counted for its statistics."""

from __future__ import annotations

from actors.intake import Tallies
from actors.limits import Limits
from actors.mailbox import Tally
from actors.ports import Engine
from actors.statistics import ChannelStatistics, EngineStatistics
from actors.upkeep import Upkeep


def count_channels(
    upkeep: Upkeep, limits: Limits, egress: Tally, audio: Tallies
) -> dict[str, ChannelStatistics]:
    """Count what waits in the channels of each kind."""
    waiting = [actor.egress.statistics() for actor in upkeep.backlogged]
    intakes = [each.intake for each in upkeep.speaking.values()]
    ingress = sum(intake.ingress.depth for intake in intakes)
    upstream = sum(intake.upstream.depth for intake in intakes)
    return {
        "ingress": audio.ingress.statistics(ingress, limits.ingress.frames),
        "upstream": audio.upstream.statistics(upstream, limits.upstream.frames),
        "egress": egress.statistics(waiting, limits.egress.messages),
    }


def count_engine(
    engine: Engine, upkeep: Upkeep, ended_seconds: float, losses: int
) -> EngineStatistics:
    """Count the sessions of an engine; `ended_seconds` is the audio of those that have ended."""
    sessions = [each for each in upkeep.speaking.values() if each.engine is engine]
    return EngineStatistics(
        streams=len(sessions),
        max_streams=engine.max_streams,
        lag=max((session.lag for session in sessions), default=0.0),
        audio_seconds=ended_seconds + sum(session.seconds for session in sessions),
        restarts=engine.restarts,
        abandoned=engine.abandoned,
        losses=losses,
    )
