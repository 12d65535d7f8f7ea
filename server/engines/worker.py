"""A thread for code of others, which may hang: it is interrupted where that can be done.

Its one rule: nothing of what happens in it reaches `threading.excepthook`.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable

from server.engines.handover import Left

_raise = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise.argtypes = [ctypes.c_ulong, ctypes.py_object]
_raise.restype = ctypes.c_int
_SHARED = frozenset({"logging", "importlib"})
"""Packages whose locks would stay held, for everybody, if one were left between two lines."""


class Worker:
    """A daemon: it keeps no process from exiting, and neither do the threads that it starts."""

    def __init__(self, name: str, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Do the work, which raises nothing but Left, in a thread; `done` is told in it."""
        self._work, self._done = work, done
        self._inside = self._interrupted = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it. Raises RuntimeError if there can be no more threads."""
        self._thread.start()

    def interrupt(self) -> bool:
        """Raise Left in the work, at its next step in Python; a call into C is not cut short.

        False, and nothing, while it is within code that holds a lock of the whole process, and
        where this process is traced: with an exception due in a thread that is in C, CPython 3.11
        spins for ever in the threads that are traced.
        """
        if sys.gettrace() is not None:
            return False

        with self._guard:
            if self._inside and not self._interrupted and self._thread.ident is not None:
                if _shares_a_lock(self._thread.ident):
                    return False

                self._interrupted = True
                _raise(self._thread.ident, Left)

        return True

    def _run(self) -> None:
        try:
            self._work_off()
        finally:
            self._done()

    def _work_off(self) -> None:
        try:
            self._inside = True
            self._work()
        except Left:
            pass

        try:
            with self._guard:
                self._inside = False
                if self._interrupted:
                    # It may be due still; then it is replaced by this one, which comes at once.
                    _raise(threading.get_ident(), Left)
        except Left:
            pass


def _shares_a_lock(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _SHARED:
            return True

        frame = frame.f_back

    return False
