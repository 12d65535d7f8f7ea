"""What a table of limits accepts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.limits import Egress, History, Limits


def test_the_defaults_are_accepted() -> None:
    assert msgspec.convert({}, Limits) == Limits()


@pytest.mark.parametrize(
    "table",
    [
        {"connections": 0},
        {"speech_idle": 0},
        {"ingress": {"frames": -1}},
        {"upstream": {"policy": "drop_newest"}},
        {"egress": {"age": 0}},
        {"history": {"messages": 1.5}},
        {"conections": 1},
        {"egress": {"size": 1}},
    ],
)
def test_a_wrong_number_or_name_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, Limits)


def test_a_replay_fits_the_mailbox_twice() -> None:
    Limits(egress=Egress(messages=20, bytes=200), history=History(replay=10, replay_bytes=100))
    with pytest.raises(ValueError, match=r"limits\.history\.replay must"):
        Limits(egress=Egress(messages=20), history=History(replay=11))

    with pytest.raises(ValueError, match=r"limits\.history\.replay_bytes must"):
        Limits(egress=Egress(bytes=200), history=History(replay_bytes=101))
