"""Three states, one way, and the first reason."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.errors import CLOSES, GONE, NORMAL, Close, IllegalTransition
from actors.lifecycle import TRANSITIONS, Lifecycle, State, Step, diagram

ORDER = list(State)


class AnyLife(RuleBasedStateMachine):
    """Whatever happens to a connection, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Lifecycle()
        self.reasons: list[Close] = []
        self.before = State.CONNECTING

    @rule()
    def accept(self) -> None:
        """Being accepted is possible once, and first."""
        state, reason = self.life.state, self.life.reason
        if state is State.CONNECTING:
            self.life.accepted()
            return

        with pytest.raises(IllegalTransition):
            self.life.accepted()

        assert (self.life.state, self.life.reason) == (state, reason)

    @rule(close=st.sampled_from(CLOSES))
    def close(self, close: Close) -> None:
        """Closing is possible always, and counts once."""
        assert self.life.closed(close) is (not self.reasons)
        self.reasons.append(close)

    @invariant()
    def moves_forward_only(self) -> None:
        """No state is entered from a later one."""
        assert ORDER.index(self.life.state) >= ORDER.index(self.before)
        self.before = self.life.state

    @invariant()
    def the_first_reason_stays(self) -> None:
        """The end has a reason, which is the first one."""
        assert self.life.reason == (self.reasons[0] if self.reasons else None)
        assert (self.life.state is State.DISCONNECTED) is bool(self.reasons)


TestAnyLife = AnyLife.TestCase


def test_the_table_is_total_but_for_two_holes() -> None:
    holes = {(state, step) for state in State for step in Step} - set(TRANSITIONS)
    assert holes == {(State.CONNECTED, Step.ACCEPTED), (State.DISCONNECTED, Step.ACCEPTED)}


def test_an_illegal_step_names_itself() -> None:
    life = Lifecycle()
    life.accepted()
    with pytest.raises(IllegalTransition, match="ACCEPTED in CONNECTED"):
        life.accepted()


def test_the_first_close_reason_wins() -> None:
    life = Lifecycle()
    assert life.closed(GONE)
    assert not life.closed(NORMAL)
    assert life.reason == GONE


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    connecting --> connected: accepted" in lines
    assert len(lines) == len(TRANSITIONS) + 3
