"""One stream to a generator: a thread or a task that pulls audio and pushes results.

Its one rule: leaving is bounded. First the code is asked to end, then interrupted, then given up;
the threads and tasks of one stream are counted until the last has ended. It runs on asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioFrame, AudioSpec, Recognition
from server.engines.answers import Answers, BadAnswer, outcome, told
from server.engines.generator_options import Bridge
from server.engines.handover import Audio, Hook, Results
from server.engines.worker import Worker

logger = logging.getLogger(__name__)

Transcribe = Callable[[Any, AudioSpec], Any]
"""What is called with the audio and its spec for each stream."""
INTERRUPTED_WITHIN = 0.5
"""Seconds in which code is interrupted and has to end; then it is given up."""
STEP = 0.02
"""Seconds between two tries to interrupt it."""


class Bridged:
    """One open stream: an `Upstream`. One task may send while another receives."""

    def __init__(self, name: str, transcribe: Transcribe, spec: AudioSpec, bridge: Bridge) -> None:
        self.abandoned = False
        """Whether something still runs though it was interrupted."""
        self._name, self._transcribe, self._spec = name, transcribe, spec
        self._bytes_per_second, self._leave_within = spec.bytes_per_second, bridge.leave_within
        self._audio = Audio(bridge.audio_bytes, 2 * spec.channels)
        self._results = Results(bridge.results)
        self._answers = Answers()
        self._loop = asyncio.get_running_loop()
        self._ended = self._left = False
        self._running = 0
        self._idle = anyio.Event()
        self._freed: Callable[[Bridged], None]
        self._workers: list[Worker] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def heard(self) -> float:
        """Seconds of audio that the generator has pulled."""
        return self._audio.pulled / self._bytes_per_second

    @property
    def done(self) -> bool:
        """Whether nothing runs any more."""
        return self._idle.is_set()

    def send_nowait(self, frame: AudioFrame) -> bool:
        """Queue audio, if there is room."""
        return not self._ended and (not frame.data or self._audio.put_nowait(frame.data))

    async def send(self, frame: AudioFrame) -> None:
        """Queue audio; waits while the generator pulls none. Raises UpstreamLost or Refused.

        A cancelled call has queued nothing.
        """
        await checkpoint()
        if self._ended:
            raise anyio.ClosedResourceError

        if frame.data and not await self._audio.put(frame.data):
            self._raise_loss()
            raise UpstreamLost(f"the stream of the {self._name} engine is closed")

    async def flush(self) -> bool:
        """Return False: a generator alone decides when a segment ends."""
        await checkpoint()
        return False

    async def end(self) -> None:
        """End the audio that the generator iterates; repeated calls do nothing.

        Raises UpstreamLost or Refused.
        """
        await checkpoint()
        self._raise_loss()
        self._ended = True
        self._audio.end()

    async def receive(self) -> Recognition:
        """Return what was found next.

        Raises anyio.EndOfStream at the end, UpstreamLost, or the Refused that was raised.
        """
        await checkpoint()
        return await self._results.get()

    def start(self, freed: Callable[[Bridged], None]) -> None:
        """Run the function; `freed` is called in the loop when nothing of it runs any more.

        Raises Refused("engine_busy") if this process can have no more threads.
        """
        self._freed = freed
        if _is_async(self._transcribe):
            self._begin_task(None)
        elif not self._begin_thread(f"{self._name} stream", self._work):
            message = f"no thread can be had for a stream of the {self._name} engine"
            raise Refused("engine_busy", message)

    async def wait_open(self) -> None:
        """Wait until the function has returned, or asks for audio. Raises UpstreamLost, Refused."""
        await self._audio.wait_asked()
        if not self._results.waiting:
            self._raise_loss()

    async def aclose(self) -> None:
        """End whatever runs, within `leave_within` and INTERRUPTED_WITHIN, or give it up.

        Bounded, also under cancellation.
        """
        self._left = True
        self._results.leave()
        self._call_elsewhere(self._audio.leave())
        if self._task is not None:
            self._task.cancel()

        with anyio.CancelScope(shield=True):
            if not await self._ends_within(self._leave_within):
                self.abandoned = not await self._interrupted()

    async def _interrupted(self) -> bool:
        """Interrupt the threads, each as soon as that is safe; return whether all has ended."""
        workers, steps = self._workers, round(INTERRUPTED_WITHIN / STEP)
        for _ in range(steps):
            workers = [each for each in workers if not each.interrupt()]
            if await self._ends_within(STEP):
                break

        return self.done

    async def wait_done(self) -> None:
        """Wait until nothing runs any more, for as long as that takes."""
        await self._idle.wait()

    async def _ends_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self.wait_done()

        return self.done

    def _raise_loss(self) -> None:
        outcome = self._results.outcome
        if outcome is not None and not isinstance(outcome, anyio.EndOfStream):
            raise outcome.with_traceback(None)

    def _work(self) -> None:
        """Call the function and drain its iterator; in the worker's thread."""
        try:
            found = self._transcribe(self._audio, self._spec)
            self._audio.asked()
            if hasattr(found, "__aiter__") or inspect.isawaitable(found):
                self._adopt(found)
                return

            self._drain(found)
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _drain(self, found: Any) -> None:
        try:
            for result in found:
                for each in self._answers.read(result, self.heard):
                    self._results.put(each)
        finally:
            if inspect.isgenerator(found):
                found.close()

    def _adopt(self, found: Any) -> None:
        """Iterate in the loop what is an async iterator; in the worker's thread."""

        def begin() -> None:
            task = self._begin_task(found)
            if self._left:
                task.cancel()

        self._loop.call_soon_threadsafe(begin)

    async def _converse(self, found: Any) -> None:
        """Call the function, unless it was, and drain its async iterator; in a task."""
        try:
            found = self._transcribe(self._audio, self._spec) if found is None else found
            if inspect.isawaitable(found):
                found = await found

            self._audio.asked()
            await self._drain_soon(found)
        except BaseException as error:  # the loop is not for the engine to end
            self._finish(error)
        else:
            self._finish(None)

    async def _drain_soon(self, found: AsyncIterator[Any]) -> None:
        try:
            async for result in found:
                for each in self._answers.read(result, self.heard):
                    await self._results.put_soon(each)
        finally:
            if inspect.isasyncgen(found):
                await found.aclose()

    def _finish(self, error: BaseException | None) -> None:
        """Say how it ended, then let go of who sends; in any thread."""
        if not self._left:
            if error is not None and not isinstance(error, Refused | UpstreamLost):
                shown = None if isinstance(error, BadAnswer) else error
                logger.error("the %s engine failed: %s", self._name, told(error), exc_info=shown)

            self._results.finish(outcome(self._name, error, self._audio.ended))

        hooks = self._audio.leave()
        if self._task is None:
            self._call(hooks)
        else:
            self._call_elsewhere(hooks)

    def _call_elsewhere(self, hooks: list[Hook]) -> None:
        """Call the hooks in a thread of their own: they may block."""
        if not hooks:
            return

        if not self._begin_thread(f"{self._name} hooks", lambda: self._call(hooks)):
            logger.warning("no thread can be had to close a stream of the %s engine", self._name)

    def _call(self, hooks: list[Hook]) -> None:
        for hook in hooks:
            try:
                hook()
            except BaseException as error:
                logger.warning("a hook of the %s engine raised %s", self._name, told(error))

    def _begin_task(self, found: Any) -> asyncio.Task[None]:
        self._running += 1
        self._task = self._loop.create_task(self._converse(found))
        self._task.add_done_callback(lambda _: self._finish_part())
        return self._task

    def _begin_thread(self, name: str, work: Callable[[], None]) -> bool:
        """Start a thread; False if this process can have no more."""
        worker = Worker(name, work, self._part_done)
        self._running += 1
        try:
            worker.start()
        except RuntimeError:
            self._finish_part()
            return False

        self._workers.append(worker)
        return True

    def _part_done(self) -> None:
        """Count one thread less; in that thread, at its end."""
        with suppress(RuntimeError):  # the loop is closed: nobody counts any more
            self._loop.call_soon_threadsafe(self._finish_part)

    def _finish_part(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
            self._freed(self)


def _is_async(function: Transcribe) -> bool:
    """Return whether a function is to be called in the loop: calling it runs nothing yet."""
    if isinstance(function, type):
        return False

    return any(
        inspect.isasyncgenfunction(each) or inspect.iscoroutinefunction(each)
        for each in (function, getattr(function, "__call__", None))  # noqa: B004
    )
