"""The windows of a run, in turns: nobody else, the loud tenant elsewhere, the loud tenant here."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from benchmarks.neighbours.noise import KINDS, REPLAYED, TOGETHER
from benchmarks.neighbours.quiet import Plan as Tenant
from benchmarks.neighbours.quiet import Quiet
from benchmarks.neighbours.stage import Stage
from benchmarks.peers.runs import Run
from server.load.delays import Delays
from server.load.usage import Process, measured

QUIET, ELSEWHERE, HERE = "quiet", "elsewhere", "here"
ALL = "all"
CALM_EVERY = 4
"""Noises between two windows in which nobody else is there."""
EVERY = (*KINDS, *TOGETHER)
FILLED = REPLAYED / 100 + 4
"""Seconds that it may take to fill the history that is replayed."""

Pooled = dict[tuple[str, str], list[Delays]]


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    rounds: int = 8
    seconds: float = 1.5
    """Seconds of a window."""
    lead: float = 0.4
    """Seconds of noise before it: what may come at once has come by then."""
    rest: float = 0.15
    """Seconds after it."""
    tenant: Tenant = Tenant()


class Windows:
    """Takes them, one after the other."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.runs: list[Run] = []
        self.pooled: Pooled = defaultdict(list)
        """The delays of all rounds, by noise and state."""
        self._stage, self._plan = stage, plan
        self._server = Process(stage.server.process.pid)
        self._quiet = Quiet(stage.target, self._server, plan.tenant)

    async def take(self, kinds: Sequence[str]) -> None:
        """Take all of them. Raises Broken, OSError or TimeoutError."""
        await self._quiet.begin()
        for server in (self._stage.decoy, self._stage.server):
            self._stage.noise.begin("fill", server.port, FILLED)
            await asyncio.to_thread(self._stage.noise.counts)

        gc.collect()
        gc.disable()
        try:
            for number in range(self._plan.rounds):
                await self._round(number, kinds if number % 2 == 0 else kinds[::-1])
        finally:
            gc.enable()

        problems = [f"{count:,} {what}" for what, count in sorted(self._quiet.end().items())]
        self.runs.append(Run("delivery", QUIET, 0, {}, problems))

    async def _round(self, number: int, kinds: Sequence[str]) -> None:
        for place, kind in enumerate(kinds):
            if place % CALM_EVERY == 0:
                await self._take("", QUIET, number)

            states = (ELSEWHERE, HERE) if (number + place) % 2 else (HERE, ELSEWHERE)
            for state in states:
                await self._take(kind, state, number)

        print(f"round {number + 1}", file=sys.stderr, flush=True)

    async def _take(self, kind: str, state: str, number: int) -> None:
        stage, plan = self._stage, self._plan
        ports = {ELSEWHERE: stage.decoy.port, HERE: stage.server.port}
        if kind:
            stage.noise.begin(kind, ports[state], plan.lead + plan.seconds + plan.rest)
            await asyncio.sleep(plan.lead)

        with measured(self._server) as usage:
            heard = await self._quiet.measure(plan.seconds)

        counts = await asyncio.to_thread(stage.noise.counts) if kind else {}
        await asyncio.sleep(plan.rest)
        self.pooled[kind, state].append(heard.delays)
        values = {f"p{each}": heard.delays.percentile(each) / 1e3 for each in (50, 99)}
        values |= {f"speech{each}": heard.speech.percentile(each) / 1e3 for each in (50, 99)}
        values |= {"largest": heard.delays.largest / 1e3, "left out": heard.left_out}
        values |= {"server": usage.server_share, "load": usage.load_share}
        values |= {f"loud {name}": float(count) for name, count in counts.items()}
        self.runs.append(Run(kind, state, number, values))
