"""How an event looks on the wire."""

from __future__ import annotations

import msgspec
import pytest

from actors.messages import AnyEvent, AudioSpec, Gap, Joined, Speaker, Transcript, Word


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
