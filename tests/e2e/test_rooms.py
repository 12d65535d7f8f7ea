"""Speakers, listeners and rooms."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from tests.e2e.clients import Client, client
from tests.servers import Server

pytestmark = pytest.mark.anyio

SECOND = bytes(32_000)


async def say(speaker: Client, seconds: int) -> None:
    """Speak to the echo engine, and wait until everything has been published."""
    await speaker.audio(SECOND * seconds)
    await speaker.ask(type="stop", id="stop")


async def test_each_listener_sees_exactly_its_rooms_finals_in_order(server: Server) -> None:
    """Two speakers, ten listeners, three rooms; two of the listeners are in two rooms."""
    rooms_of = [["r1"]] * 3 + [["r2"]] * 3 + [["r3"]] * 2 + [["r1", "r2"], ["r2", "r3"]]
    async with AsyncExitStack() as stack:
        listeners = []
        for rooms in rooms_of:
            listener = await stack.enter_async_context(client(f"{server.ws}/v1/connect"))
            for room in rooms:
                await listener.ask(type="join", id=room, room=room)

            listeners.append(listener)

        speakers = []
        for room, name in (("r1", "Ann"), ("r2", "Bob")):
            speaker = await stack.enter_async_context(client(f"{server.ws}/v1/connect"))
            await speaker.ask(type="start", id=1, room=room, name=name, engine="echo")
            speakers.append(speaker)

        async with anyio.create_task_group() as tasks:
            for speaker in speakers:
                tasks.start_soon(say, speaker, 7)

        for rooms, listener in zip(rooms_of, listeners, strict=True):
            await listener.finals(7 * len({"r1", "r2"} & {*rooms}))
            await listener.ask(type="ping", id="end")
            finals = [e for e in listener.events if e["type"] == "transcript" and e["final"]]
            for room in ("r1", "r2", "r3"):
                texts = [event["text"] for event in finals if event["room"] == room]
                spoken = room in rooms and room != "r3"
                assert texts == ([f"echo {n}" for n in range(1, 8)] if spoken else [])

            speakers_of = {event["room"]: event["speaker"]["name"] for event in finals}
            assert speakers_of == {
                r: n for r, n in {"r1": "Ann", "r2": "Bob"}.items() if r in rooms
            }


async def test_offsets_are_contiguous_and_partials_have_none(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/offsets/listen") as listener,
        client(f"{server.ws}/v1/rooms/offsets/speak?engine=echo") as speaker,
    ):
        joined = await listener.until("joined")
        await speaker.audio(SECOND * 5)
        await speaker.send(type="stop")
        assert await speaker.closed() == (1000, "normal")
        finals = await listener.finals(5)
        assert [event["offset"] for event in finals] == [1, 2, 3, 4, 5]
        assert {event["epoch"] for event in finals} == {joined["epoch"]}
        partials = [e for e in listener.events if e["type"] == "transcript" and not e["final"]]
        assert partials
        assert not any("offset" in event for event in partials)


async def test_no_partial_of_a_segment_comes_after_its_final(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/order/listen") as listener,
        client(f"{server.ws}/v1/rooms/order/speak?engine=echo") as speaker,
    ):
        await listener.until("joined")
        await speaker.audio(SECOND * 5)
        await speaker.send(type="stop")
        await listener.finals(5)
        done: set[str] = set()
        revisions: dict[str, int] = {}
        for event in listener.events:
            if event["type"] == "transcript":
                assert event["segment"] not in done
                assert event["revision"] > revisions.get(event["segment"], -1)
                revisions[event["segment"]] = event["revision"]
                if event["final"]:
                    done.add(event["segment"])


async def test_partials_false_means_finals_only(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/quiet/listen?partials=false") as listener,
        client(f"{server.ws}/v1/rooms/quiet/speak?engine=echo") as speaker,
    ):
        await listener.until("joined")
        await speaker.audio(SECOND * 3)
        await speaker.send(type="stop")
        await listener.finals(3)
        assert [e["type"] for e in listener.events] == ["hello", "joined", *["transcript"] * 3]


async def test_messagepack_says_the_same_as_json(server: Server) -> None:
    async with (
        client(f"{server.ws}/v1/rooms/codec/listen", "msgpack") as packed,
        client(f"{server.ws}/v1/rooms/codec/listen") as plain,
        client(f"{server.ws}/v1/connect", "msgpack") as speaker,
    ):
        await packed.until("joined")
        await plain.until("joined")
        data = {"a": [1, 2.5, None, "é"], "big": 2**53}
        ack = await speaker.ask(type="publish", id=1, room="codec", data=data)
        assert (ack["type"], ack["offset"]) == ("ack", 1)
        await speaker.ask(type="start", id=2, room="codec", engine="echo")
        await speaker.socket.send(b"\xc5\x7d\x00" + SECOND)  # a MessagePack bin of 32,000 bytes
        await speaker.ask(type="stop", id=3)
        for listener in (packed, plain):
            message = await listener.until("message")
            assert message["data"] == data
            await listener.finals(1)

        assert packed.events[2:] == plain.events[2:]


async def test_what_is_published_over_http_and_socket_reaches_listeners_unchanged(
    server: Server,
) -> None:
    import httpx2

    values: list[object] = [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "\u2028 <b>",
        [],
        {},
        {"deep": [{"er": [1]}]},
    ]
    async with (
        client(f"{server.ws}/v1/rooms/same/listen") as listener,
        client(f"{server.ws}/v1/connect") as sender,
        httpx2.AsyncClient() as http,
    ):
        await listener.until("joined")
        for value in values:
            await sender.ask(type="publish", id=1, room="same", data=value)
            answer = await http.post(f"{server.http}/v1/rooms/same/messages", json={"data": value})
            assert answer.status_code == 200

        got = await listener.messages(2 * len(values))
        assert [event["data"] for event in got] == [
            each for value in values for each in (value,) * 2
        ]


async def test_a_broadcast_reaches_every_room_of_the_tenant(server: Server) -> None:
    import httpx2

    async with (
        client(f"{server.ws}/v1/rooms/b1/listen") as one,
        client(f"{server.ws}/v1/rooms/b2/listen") as two,
        httpx2.AsyncClient() as http,
    ):
        await one.until("joined")
        await two.until("joined")
        await http.post(f"{server.http}/v1/broadcast", json={"data": "all"})
        for listener, room in ((one, "b1"), (two, "b2")):
            message = await listener.until("message")
            assert (message["room"], message["data"]) == (room, "all")
