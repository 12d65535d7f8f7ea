"""From a recognition to the listener's socket, and from a publish to the last of many listeners.

Measured, one at a time on a server that does nothing else: the time from just before the audio
frame that completes a step of the echo engine is written by a speaker to the arrival of that
transcript at a listener on another connection (client -> server -> engine -> room -> listener);
beside it, as the floor, a message of the same size to `/v1/echo` and back. Then the time from just
before a publish is written to its arrival at the last of the listeners. Not measured: the work of
a real speech engine, load (see `fanout`), networks. A final is also stored; a partial is not.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import uvloop

from benchmarks.machine import measured, server
from benchmarks.report import Report
from server.load.delays import Delays
from server.load.frames import BINARY, pack
from server.load.rooms import Publisher, Room
from server.load.sockets import Broken, Socket, hang_up
from server.load.speak import FRAME
from server.load.target import Target
from tests.servers import Server

FRAMES_PER_STEP = 10
"""The echo engine recognizes something each 200 ms."""
STEPS_PER_FINAL = 5
PAUSE = 0.005
"""Seconds of rest before each stamped frame: the server sleeps when it comes."""


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    steps: int = 400
    """Transcripts, and echoes, of each run."""
    listeners: int = 1000
    publishes: int = 25
    """Publishes of each run."""
    rate: float = 10.0
    """Publishes a second."""
    runs: int = 3


QUICK = Plan(steps=150, publishes=15, runs=1)


def run(plan: Plan) -> Report:
    """Measure both ways on one server, one after the other."""
    report = Report("latency")
    with server() as subject:
        for measure in (_measure_speech, _measure_publish):
            uvloop.run(measure(subject, plan, report))

    return report


async def _measure_speech(subject: Server, plan: Plan, report: Report) -> None:
    room, target = Room("speech"), Target(subject.port)
    await room.fill(target, 1)
    speaker = await target.open(lambda: Socket("/v1/rooms/speech/speak?engine=echo"))
    await speaker.event("speech", lambda event: event["state"] == "ready")
    echo = await target.open(lambda: Socket("/v1/echo"))
    floor: list[list[int]] = []
    heard: list[list[int]] = []
    try:
        with measured(subject) as usage:
            for _ in range(plan.runs):
                floor.append([await _echo(echo) for _ in range(plan.steps)])
                heard.append([await _speak_a_step(speaker, room) for _ in range(plan.steps)])

        report.add_disturbance("speech", [usage])
    except (Broken, TimeoutError):
        report.check("speech", ["a transcript did not come in time"])

    finals = [run[STEPS_PER_FINAL - 1 :: STEPS_PER_FINAL] for run in heard]
    report.add_delays("audio to transcript at a listener", [Delays(run) for run in heard])
    report.add_delays("of these, finals", [Delays(run) for run in finals])
    report.add_delays("floor: echo of as many bytes", [Delays(run) for run in floor])
    room.published = room.received // STEPS_PER_FINAL
    report.check_counts("speech", room.audit())
    hang_up([*room.listeners, speaker, echo])


async def _echo(socket: Socket) -> int:
    """Send a frame to be sent back; return the nanoseconds that it took."""
    await asyncio.sleep(PAUSE)
    socket.latest.clear()
    message, sent = pack(BINARY, FRAME), time.monotonic_ns()
    socket.transport.write(message)
    await socket.event("binary")
    return socket.came_at - sent


async def _speak_a_step(speaker: Socket, room: Room) -> int:
    """Say what makes the engine recognize something; return the nanoseconds until it was heard."""
    message, heard = pack(BINARY, FRAME), room.received
    speaker.transport.write(message * (FRAMES_PER_STEP - 1))
    await asyncio.sleep(PAUSE)
    sent = time.monotonic_ns()
    speaker.transport.write(message)
    await room.reach(heard + 1)
    return room.came_at - sent


async def _measure_publish(subject: Server, plan: Plan, report: Report) -> None:
    room, target = Room("publish"), Target(subject.port)
    await room.fill(target, plan.listeners)
    publisher = await target.open(Publisher)
    last: list[list[int]] = []
    try:
        with measured(subject) as usage:
            for _ in range(plan.runs):
                run = [await _publish(publisher, room, plan.rate) for _ in range(plan.publishes)]
                last.append(run)

        report.add_disturbance("publish", [usage])
    except (Broken, TimeoutError):
        report.check("publish", ["a message did not come in time"])

    report.add_delays(
        f"publish to the last of {plan.listeners} listeners", [Delays(run) for run in last]
    )
    report.check_counts("publish", room.audit())
    hang_up([publisher, *room.listeners])


async def _publish(publisher: Publisher, room: Room, rate: float) -> int:
    """Publish once; return the nanoseconds until every listener had it."""
    await asyncio.sleep(1 / rate)
    sent = time.monotonic_ns()
    publisher.publish(room)
    await room.complete()
    return room.came_at - sent
