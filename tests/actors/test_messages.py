"""What a command may hold, and how an event looks on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.messages import (
    AnyCommand,
    AnyEvent,
    AudioSpec,
    Gap,
    Join,
    Joined,
    Ping,
    Publish,
    Speaker,
    Start,
    Transcript,
    Word,
)

commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def read(table: dict[str, Any]) -> AnyCommand:
    """Read a command as it comes from a client."""
    return commands.decode(msgspec.json.encode(table))


def test_a_command_has_defaults_for_what_is_left_out() -> None:
    assert read({"type": "join", "room": "a"}) == Join(room="a")
    assert read({"type": "start", "room": "a"}) == Start(room="a", encoding="pcm_s16le", rate=None)


def test_a_command_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `rom`"):
        read({"type": "join", "room": "a", "rom": "b"})


@pytest.mark.parametrize("room", ["a", "A-z_0.9:x", "x" * 128])
def test_a_room_has_a_plain_name(room: str) -> None:
    assert read({"type": "leave", "room": room}).id is None


@pytest.mark.parametrize("room", ["", "x" * 129, "a/b", "a b", "a\n", "~probe", "ä", "a\x00"])
def test_a_room_has_no_other_name(room: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read({"type": "leave", "room": room})


@pytest.mark.parametrize("value", ["", "x" * 64, 0, -(2**53), 2**53])
def test_an_id_is_a_short_text_or_a_number_that_every_client_can_hold(value: int | str) -> None:
    assert read({"type": "ping", "id": value}) == Ping(id=value)


@pytest.mark.parametrize("value", ["x" * 65, 2**53 + 1, 1.5, True, [1]])
def test_an_id_is_nothing_else(value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        read({"type": "ping", "id": value})


@pytest.mark.parametrize("data", [None, 0, "x", [1, {"a": [None]}], {}])
def test_any_json_value_can_be_published(data: object) -> None:
    assert read({"type": "publish", "room": "a", "data": data}) == Publish(room="a", data=data)


def test_history_is_not_negative() -> None:
    with pytest.raises(msgspec.ValidationError):
        read({"type": "join", "room": "a", "history": -1})


@pytest.mark.parametrize(
    "event",
    [
        Gap(room="a", first=1, last=2, reason="expired"),
        Joined(room="a", epoch="e", offset=0),
        Transcript(
            room="a",
            segment="s.0",
            revision=0,
            final=True,
            text="hi",
            start=0.0,
            end=1.0,
            words=(Word("hi", 0.0, 1.0, 0.5),),
            speaker=Speaker("1", "Ann"),
            language="en",
            at=1.0,
        ),
    ],
)
def test_a_field_that_does_not_apply_is_absent(event: AnyEvent) -> None:
    table = msgspec.to_builtins(event)
    unset = {name for name in event.__struct_fields__ if getattr(event, name) is msgspec.UNSET}
    assert unset
    assert not unset & set(table)
    assert table["type"] == type(event).__name__.lower()


def test_a_gap_says_from_and_to() -> None:
    table = msgspec.to_builtins(Gap(room="a", first=3, last=5, reason="expired"))
    assert table == {"type": "gap", "room": "a", "from": 3, "to": 5, "reason": "expired"}


def test_a_second_of_audio_is_counted_in_16_bit_samples() -> None:
    assert AudioSpec().bytes_per_second == 32_000
    assert AudioSpec(rate=8000, channels=2).bytes_per_second == 32_000
