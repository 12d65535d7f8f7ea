"""What a flood of wrong tokens costs, over sockets: CPU of the server for each of them.

Every attempt is a connection of its own, all from one address, with a token of another secret. The
first are looked at (401), the next refused (429), and who goes on is cut unread.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import cast

import jwt
import msgspec
import uvloop

from benchmarks.machine import measured, server
from benchmarks.report import Report
from server.load.target import Target
from server.load.usage import Usage

SECRET = "a secret for the benchmark, of more than 32 bytes"
TENANTS = msgspec.json.encode({"a": {"keys": {"k": {"secret": SECRET}}}}).decode()
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: cm9vbWNhc3Qgcm9vbWNhcw==\r\nSec-WebSocket-Version: 13\r\n"
)
REQUESTS = {"upgrades": ("/v1/connect", UPGRADE), "requests": ("/v1/usage", "")}
"""Path and more of the head, by what they are."""
CUT = "cut"
REST = 6.0
"""Seconds after which an address is not held to what it did."""
AT_ONCE = 200
"""Connections at a time, at most."""
LOG_MOST = 4096
"""Bytes that the log of a server may have."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    rate: int = 5000
    """Attempts a second."""
    seconds: float = 3.0
    runs: int = 3


QUICK = Plan(seconds=1.0, runs=1)


class Attempt(asyncio.Protocol):
    """One connection: it asks, and hangs up at the answer."""

    def __init__(self, request: bytes, outcomes: Counter[str]) -> None:
        self._request, self._outcomes = request, outcomes
        self._outcome = CUT
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep the status, and hang up."""
        self._outcome = data[9:12].decode()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count."""
        self._outcomes[self._outcome] += 1
        self.over.set()


def run(plan: Plan) -> Report:
    """Measure on a server for each kind of request, whose log may not grow."""
    report = Report("flood")
    for kind, (path, more) in REQUESTS.items():
        token = jwt.encode({"tenant": "a", "exp": 2**33}, SECRET + "!", "HS256")
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        usages: list[Usage] = []
        outcomes: list[Mapping[str, int]] = []
        with server(tenants=TENANTS) as subject:
            for number in range(plan.runs):
                time.sleep(REST if number else 0.0)
                with measured(subject) as usage:
                    flood = _flood(Target(subject.port), plan, head.encode())
                    outcomes.append(uvloop.run(flood))

                usages.append(usage)

            logged = len(subject.output)

        title = f"wrong tokens in {kind}"
        each = [used.server / sum(one.values()) for used, one in zip(usages, outcomes, strict=True)]
        report.add(f"{title}, CPU of each", "us", [1e6 * one for one in each])
        for name in ("401", "429", CUT):
            report.add(f"{title}, {name}", "", [one.get(name, 0) for one in outcomes])

        rates = [sum(one.values()) / used.wall for used, one in zip(usages, outcomes, strict=True)]
        report.add(f"{title}, attempts", "/s", rates)
        report.add(f"{title}, log", "bytes", [logged])
        if logged > LOG_MOST:
            report.check(title, [f"the log has {logged} bytes"])

        report.check(
            title, sorted({name for one in outcomes for name in one} - {"401", "429", CUT})
        )

    return report


async def _flood(target: Target, plan: Plan, request: bytes) -> Counter[str]:
    """Make the attempts of one run; return how they ended."""
    outcomes: Counter[str] = Counter()
    began, places = time.monotonic(), asyncio.Semaphore(AT_ONCE)

    async def attempt() -> None:
        try:
            made = await target.connect(lambda: Attempt(request, outcomes))
            await made.over.wait()
        except OSError:
            outcomes[CUT] += 1
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for number in range(round(plan.rate * plan.seconds)):
            await places.acquire()
            tasks.create_task(attempt())
            ahead = number / plan.rate - (time.monotonic() - began)
            if ahead > 0:
                await asyncio.sleep(ahead)

    return outcomes
