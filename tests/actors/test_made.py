"""What is made once is made when it is asked for, and may be set."""

from __future__ import annotations

import pytest

from actors.made import made_once


class Maker:
    """Counts how often it makes something."""

    def __init__(self) -> None:
        self.made = 0

    @made_once
    def thing(self) -> str:
        """What is made."""
        self.made += 1
        if self.made == 1:
            raise ValueError

        return f"thing {self.made}"


class Given(Maker):
    """Has it already."""

    def __init__(self) -> None:
        super().__init__()
        self.thing = "given"


def test_it_is_made_when_it_is_asked_for_and_then_stays() -> None:
    maker = Maker()
    assert maker.made == 0
    with pytest.raises(ValueError):  # noqa: PT011  its own
        _ = maker.thing

    assert [maker.thing, maker.thing] == ["thing 2", "thing 2"]
    assert Given().thing == "given"
    assert Maker.thing.__doc__ == "What is made."
