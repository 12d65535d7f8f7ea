"""Audio to a generator and results from it, across threads: two bounded queues.

Its one rule: whoever waits here is woken when the other side goes. A queue has one end in the event
loop; the other may be in a thread, that waits in the plain methods, or in the loop too.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import anyio

from actors.messages import Recognition

Hook = Callable[[], object]


class Left(BaseException):
    """Raised in a generator that still works for a stream that was left.

    No Exception, for a loop that survives its errors shall not survive this.
    """


class Waker:
    """Wakes the one task that waits for something, from any thread."""

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._event: anyio.Event | None = None

    def expect(self) -> anyio.Event:
        """Return the event that the next `wake` sets; the lock of what is waited for is held."""
        if self._event is None:
            self._event = anyio.Event()

        return self._event

    def wake(self) -> None:
        """Wake who waits; the lock is held."""
        event, self._event = self._event, None
        if event is None:
            return

        if threading.get_ident() == self._thread:
            event.set()
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits in it
                self._loop.call_soon_threadsafe(event.set)


class Audio(Iterator[bytes], AsyncIterator[bytes]):
    """The audio of one stream, in whole samples, as a generator pulls it.

    Any thread may iterate, and so may tasks of the event loop. The iteration ends when the speaker
    stops, when the stream is left, and when `close` is called.
    """

    def __init__(self, limit: int, sample: int) -> None:
        """Hold `limit` bytes, and what a frame is longer; a sample has so many bytes."""
        self.pulled = 0
        """Bytes that were pulled."""
        self.ended = False
        """Whether the speaker has stopped."""
        self._limit, self._sample = limit, sample
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._carry = b""
        self._closed = self._gone = self._asked = False
        self._hooks: list[Hook] = []
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._room, self._came, self._first = Waker(), Waker(), Waker()

    def __iter__(self) -> Audio:
        return self

    def __next__(self) -> bytes:
        """Return the next piece; waits for the speaker, or for the end."""
        with self._lock:
            while not self._chunks:
                self._ask()
                if self.ended or self._closed:
                    raise StopIteration

                self._filled.wait()

            return self._pull()

    def __aiter__(self) -> Audio:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece; waits for the speaker, or for the end."""
        while True:
            with self._lock:
                if self._chunks:
                    return self._pull()

                self._ask()
                if self.ended or self._closed:
                    raise StopAsyncIteration

                came = self._came.expect()

            await came.wait()

    def on_leave(self, hook: Hook) -> None:
        """Have a function called, once, when the stream is over or left, in some other thread.

        It should make the blocking calls of an SDK return, as by closing its socket. Called at once
        if the stream was left before.
        """
        with self._lock:
            if not self._gone:
                self._hooks.append(hook)
                return

        hook()

    def close(self) -> None:
        """End the iteration at the next pull, also one that waits now. Idempotent."""
        with self._lock:
            self._closed = True
            self._chunks.clear()
            self._filled.notify_all()
            self._came.wake()

    def leave(self) -> list[Hook]:
        """Close for good: nobody may wait to put any more. Return the hooks that are due."""
        self.close()
        with self._lock:
            self._gone = True
            self._room.wake()
            self._first.wake()
            hooks, self._hooks = self._hooks, []
            return hooks

    def end(self) -> None:
        """Say that the speaker has stopped; half a sample that is left is dropped."""
        with self._lock:
            self.ended = True
            self._filled.notify_all()
            self._came.wake()

    def put_nowait(self, data: bytes) -> bool:
        """Add audio; False, and nothing, while the queue is full or closed."""
        with self._lock:
            if self._closed or self._waiting >= self._limit:
                return False

            self._push(data)
            return True

    async def put(self, data: bytes) -> bool:
        """Add audio; waits while the queue is full. False when nobody will ever pull it."""
        while True:
            with self._lock:
                if self._gone:
                    return False

                if not self._closed and self._waiting < self._limit:
                    self._push(data)
                    return True

                room = self._room.expect()

            await room.wait()

    async def wait_asked(self) -> None:
        """Wait until audio was asked for, or nobody ever will."""
        while True:
            with self._lock:
                if self._asked or self._gone:
                    return

                first = self._first.expect()

            await first.wait()

    def asked(self) -> None:
        """Note that audio will be asked for."""
        with self._lock:
            self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._first.wake()

    def _push(self, data: bytes) -> None:
        if self._carry or len(data) % self._sample:
            data = self._carry + data
            whole = len(data) // self._sample * self._sample
            data, self._carry = data[:whole], data[whole:]
            if not data:
                return

        self._chunks.append(data)
        self._waiting += len(data)
        self._filled.notify()
        self._came.wake()

    def _pull(self) -> bytes:
        self._ask()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        self.pulled += len(chunk)
        if self._waiting < self._limit:
            self._room.wake()

        return chunk


class Results:
    """What a generator has found, and in the end how it ended."""

    def __init__(self, limit: int) -> None:
        self.outcome: Exception | None = None
        """What is raised behind the last result."""
        self._limit = limit
        self._found: deque[Recognition] = deque()
        self._left = False
        self._lock = threading.Lock()
        self._taken = threading.Condition(self._lock)
        self._news, self._room = Waker(), Waker()

    @property
    def waiting(self) -> int:
        """Results that wait to be received."""
        return len(self._found)

    def put(self, found: Recognition) -> None:
        """Add a result from a thread; waits while the queue is full. Raises Left."""
        with self._lock:
            while not self._add(found):
                self._taken.wait()

    async def put_soon(self, found: Recognition) -> None:
        """Add a result from a task; waits while the queue is full. Raises Left."""
        while True:
            with self._lock:
                if self._add(found):
                    return

                room = self._room.expect()

            await room.wait()

    def finish(self, outcome: Exception) -> None:
        """Say how it ended; the first word counts."""
        with self._lock:
            self.outcome = self.outcome or outcome
            self._news.wake()

    def leave(self) -> None:
        """Take nothing any more."""
        with self._lock:
            self._left = True
            self._taken.notify_all()
            self._room.wake()

    async def get(self) -> Recognition:
        """Return the next result, or raise the outcome."""
        while True:
            with self._lock:
                if self._found:
                    self._taken.notify()
                    self._room.wake()
                    return self._found.popleft()

                if self.outcome is not None:
                    raise self.outcome.with_traceback(None)

                news = self._news.expect()

            await news.wait()

    def _add(self, found: Recognition) -> bool:
        if self._left:
            raise Left

        if len(self._found) >= self._limit:
            return False

        self._found.append(found)
        self._news.wake()
        return True
