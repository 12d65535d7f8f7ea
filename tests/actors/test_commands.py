"""What a command may hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.commands import AnyCommand, Join, Ping, Publish, Start

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
