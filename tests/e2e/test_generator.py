"""A server whose engine is a Python function: it recognizes, or hangs and holds nobody up."""

from __future__ import annotations

import time

import pytest

from tests.doubles import numbered, numbers
from tests.e2e.clients import client
from tests.e2e.conftest import LEAN, Serve

pytestmark = [pytest.mark.anyio, LEAN]
SERIES = 'roomcast_engine_abandoned{engine="generator"}'


async def test_what_a_function_yields_is_published(serve: Serve) -> None:
    server = serve(
        engines__enabled="generator", engines__generator__call="tests.server.generators:hears"
    )
    async with client(f"{server.ws}/v1/rooms/a/speak?transcripts=true") as speaker:
        await speaker.audio(numbered(1, 250), 640)
        await speaker.send(type="stop", id="stop")
        await speaker.until("ack", lambda event: event["id"] == "stop")

    finals = [e for e in speaker.events if e["type"] == "transcript" and e["final"]]
    assert numbers([event["text"] for event in finals]) == list(range(1, 251))


async def test_a_function_that_hangs_is_counted_and_holds_no_drain_up(serve: Serve) -> None:
    server = serve(
        engines__enabled="generator",
        engines__generator__call="tests.e2e.generators:stuck",
        engines__generator__max_streams=1,
        engines__generator__bridge__leave_within=0.2,
        speech__resume_grace=0,
        limits__upstream__end_within=0.5,
    )
    async with client(f"{server.ws}/v1/rooms/a/speak?transcripts=true") as speaker:
        await speaker.audio(numbered(1, 5), 640)
        await speaker.until("transcript")
        await speaker.send(type="stop", id="stop")
        assert (await speaker.closed())[0] == 4005

    assert server.metric(SERIES) == 1
    async with client(f"{server.ws}/v1/rooms/a/speak") as another:
        assert (await another.closed())[0] == 1013

    assert "hang" in str(another.events)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5
