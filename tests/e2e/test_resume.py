"""Listeners that go away and come back."""

from __future__ import annotations

import time

import anyio
import pytest

from tests.e2e.clients import client
from tests.e2e.conftest import LEAN, Serve
from tests.servers import Server

pytestmark = [pytest.mark.anyio, LEAN]

STEP = bytes(1280)
"""40 ms of audio."""


async def test_five_seconds_away_miss_nothing_and_repeat_nothing(server: Server) -> None:
    url = f"{server.ws}/v1/rooms/away/listen?partials=false"
    async with (
        client(url) as steady,
        client(f"{server.ws}/v1/rooms/away/speak?engine=echo") as speaker,
        anyio.create_task_group() as tasks,
    ):
        await steady.until("joined")

        async def speak() -> None:
            began = time.monotonic()
            for n in range(1, 8 * 25 + 1):
                await speaker.socket.send(STEP)
                await anyio.sleep(max(0.0, began + n * 0.04 - time.monotonic()))

            await speaker.send(type="stop")

        tasks.start_soon(speak)
        async with client(url) as first:
            seen = await first.finals(1)

        left = time.monotonic()
        await steady.finals(7)
        assert time.monotonic() - left > 5
        last = seen[-1]
        async with client(f"{url}&since={last['epoch']}:{last['offset']}") as second:
            assert (await second.until("joined"))["recovered"] is True
            seen += await second.finals(7)

        await steady.finals(1)
        assert [event["offset"] for event in seen] == list(range(1, 9))
        assert seen == [e for e in steady.events if e["type"] == "transcript"]


async def test_history_that_is_gone_is_told_as_a_gap(serve: Serve) -> None:
    server = serve(limits__history__messages=5)
    async with client(f"{server.ws}/v1/connect") as sender:
        acks = [await sender.ask(type="publish", id=n, room="a", data=n) for n in range(1, 21)]
        epoch = acks[0]["epoch"]
        async with client(f"{server.ws}/v1/rooms/a/listen?since={epoch}:10") as late:
            joined = await late.until("joined")
            assert (joined["recovered"], joined["offset"]) == (False, 20)
            gap = await late.until("gap")
            assert (gap["from"], gap["to"], gap["reason"]) == (11, 20, "expired")
            await sender.ask(type="publish", id=21, room="a", data=21)
            assert (await late.until("message"))["offset"] == 21

        async with client(f"{server.ws}/v1/rooms/a/listen?since={epoch}:16") as early:
            assert (await early.until("joined"))["recovered"] is True
            assert [m["data"] for m in await early.messages(5)] == [17, 18, 19, 20, 21]


async def test_another_epoch_and_a_position_from_the_future_are_gaps(server: Server) -> None:
    async with client(f"{server.ws}/v1/connect") as someone:
        ack = await someone.ask(type="publish", id=1, room="other", data=1)
        await someone.ask(type="join", id=2, room="other", since="elsewhere:1")
        gap = await someone.until("gap")
        assert (gap["reason"], gap["from"], gap["to"]) == ("epoch_changed", 1, 1)
        await someone.ask(type="leave", id=3, room="other")
        joined = await someone.ask(type="join", id=4, room="other", since=f"{ack['epoch']}:9")
        assert joined["recovered"] is False
        gap = await someone.until("gap")
        assert (gap["reason"], gap["from"], gap["to"]) == ("ahead", 2, 9)


async def test_history_gives_the_newest_events(server: Server) -> None:
    async with client(f"{server.ws}/v1/connect") as someone:
        for n in range(10):
            await someone.ask(type="publish", id=n, room="past", data=n)

        async with client(f"{server.ws}/v1/rooms/past/listen?history=3") as late:
            joined = await late.until("joined")
            assert "recovered" not in joined
            assert [event["data"] for event in await late.messages(3)] == [7, 8, 9]


async def test_a_restarted_server_tells_a_gap(serve: Serve) -> None:
    server = serve()
    async with client(f"{server.ws}/v1/connect") as sender:
        ack = await sender.ask(type="publish", id=1, room="a", data=1)

    server.kill()
    server.start()
    async with client(f"{server.ws}/v1/rooms/a/listen?since={ack['epoch']}:1") as back:
        assert (await back.until("joined"))["recovered"] is False
        assert (await back.until("gap"))["reason"] == "epoch_changed"
