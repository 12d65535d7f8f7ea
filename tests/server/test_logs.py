"""How much of one cause gets into the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from server.logs import CAUSES, LINES, LONGEST, WITHIN, Allowance, LogBound


def test_a_cause_has_so_many_lines_and_then_a_count() -> None:
    allowance = Allowance()
    had = [allowance.take(("a", 1), 5.0) for _ in range(LINES + 7)]
    assert had == [0] * LINES + [None] * 7
    assert allowance.take(("a", 2), 5.0) == 0
    assert allowance.take(("a", 1), 5.0 + WITHIN - 1) is None
    assert allowance.take(("a", 1), 5.0 + WITHIN) == 8
    assert allowance.take(("a", 1), 5.0 + WITHIN) == 0


def test_more_causes_than_there_can_be_share_one_allowance() -> None:
    allowance = Allowance()
    had = [allowance.take(("a", number), 0.0) for number in range(CAUSES + 2 * LINES)]
    assert had == [0] * (CAUSES + LINES) + [None] * LINES


class Handler(logging.Handler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own."""
    logger = logging.Logger("tests")
    yield logger
    logger.handlers.clear()


def test_the_handler_says_how_many_were_left_out_and_each_is_counted(
    logger: logging.Logger,
) -> None:
    now, dropped, handler = [0.0], [0], Handler()

    def drop() -> None:
        dropped[0] += 1

    handler.addFilter(LogBound(drop, lambda: now[0]))
    logger.addHandler(handler)

    def fail(number: int) -> None:
        logger.warning("number %d failed", number)

    for number in range(LINES + 3):
        fail(number)

    logger.warning("another cause")
    now[0] = WITHIN
    fail(99)
    assert dropped == [3]
    assert handler.lines[LINES - 1 :] == [
        f"number {LINES - 1} failed",
        "another cause",
        "number 99 failed (3 more like this were left out)",
    ]


def test_a_long_message_is_cut(logger: logging.Logger) -> None:
    handler = Handler()
    handler.addFilter(LogBound(lambda: None))
    logger.addHandler(handler)
    logger.warning("%s", "begin" + "x" * 100_000 + "end")
    logger.warning("100%% of %s", "it")
    long, short = handler.lines
    assert len(long) == LONGEST + len(" [...] ")
    assert (long[:5], long[-3:], short) == ("begin", "end", "100% of it")
