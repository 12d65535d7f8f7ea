"""The node as a whole, from the doors of its connections."""

from __future__ import annotations

import pytest

from actors.messages import Message, Transcript
from tests.actors.node import running
from tests.autojump import settle

pytestmark = pytest.mark.anyio


async def test_a_message_reaches_every_listener_of_its_room_and_no_other() -> None:
    async with running() as node:
        _, here = await node.join("a")
        _, there = await node.join("b")
        await node.publish("a", {"x": 1})
        await settle()

        assert [event.data for event in here.got if isinstance(event, Message)] == [{"x": 1}]
        assert not [event for event in there.got if isinstance(event, Message)]


async def test_a_speaker_is_heard_in_the_room() -> None:
    async with running() as node:
        _, ear = await node.join("a")
        actor, mouth = node.connect()
        await actor.receive('{"type":"start","id":1,"room":"a","name":"Ann"}')
        await actor.receive(b"\0" * 640)
        await settle()
        stream = node.engine.streams[0]
        assert stream.audio == b"\0" * 640
        stream.transcribe("hello", final=False)
        stream.transcribe("hello there", revision=1)
        await settle()
        got = [event for event in ear.got if isinstance(event, Transcript)]
        assert [(each.text, each.final) for each in got] == [
            ("hello", False),
            ("hello there", True),
        ]
        assert got[0].segment == got[1].segment
        assert got[1].offset == 1
        assert got[1].speaker.name == "Ann"
        await actor.receive('{"type":"stop","id":2}')
        await settle()
        stream.finish()
        await settle()
        assert [type(event).__name__ for event in mouth.got] == [
            "Hello",
            "Speech",
            "Ack",
            "Speech",
            "Speech",
            "Ack",
        ]
