"""The three states of a connection as one literal table; the first reason to end wins."""

from __future__ import annotations

from enum import Enum

from actors.errors import Close, IllegalTransition


class State(Enum):
    """Where a connection stands; draining is DISCONNECTED with egress still flushing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Step(Enum):
    """What can happen to a connection."""

    ACCEPTED = "accepted"
    CLOSED = "closed"


TRANSITIONS = {
    (State.CONNECTING, Step.ACCEPTED): State.CONNECTED,
    (State.CONNECTING, Step.CLOSED): State.DISCONNECTED,
    (State.CONNECTED, Step.CLOSED): State.DISCONNECTED,
    (State.DISCONNECTED, Step.CLOSED): State.DISCONNECTED,
}


class Lifecycle:
    """The state of one connection, and why it ended."""

    __slots__ = ("connected", "reason", "state")

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.connected = False
        """Whether that is CONNECTED: each frame of audio asks, and a member of an Enum is dear."""
        self.reason: Close | None = None

    def accepted(self) -> None:
        """Move to CONNECTED. Raises IllegalTransition, changing nothing, from any later state."""
        self._take(Step.ACCEPTED)

    def closed(self, close: Close) -> bool:
        """Move to DISCONNECTED and keep the first reason; return whether this was it."""
        self._take(Step.CLOSED)
        if self.reason is not None:
            return False

        self.reason = close
        return True

    def _take(self, step: Step) -> None:
        try:
            self.state = TRANSITIONS[self.state, step]
            self.connected = self.state is State.CONNECTED
        except KeyError:
            raise IllegalTransition(f"{step.name} in {self.state.name}") from None


def diagram() -> str:
    """Draw the table as a mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> connecting"]
    lines += [f"    {a.value} --> {b.value}: {step.value}" for (a, step), b in TRANSITIONS.items()]
    return "\n".join([*lines, "    disconnected --> [*]"])
