"""Fetching sets of keys: in threads, so that no address can hold up anything but itself."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

import anyio
from anyio import CapacityLimiter, to_thread

from actors.ports import Clock
from server.keys import VerifyingKey, read_jwks
from server.keysets import KeySet
from server.loopback import is_loopback

log = logging.getLogger("roomcast.tenants")

BYTES = 65_536
"""Bytes of one set."""
STEP_WITHIN = 5.0
"""Seconds an address may take for each step: a connection, a piece of the answer."""
WITHIN = 10.0
"""Seconds for all of them; a thread that is still waiting then is left to its last step."""
THREADS = 8
"""Sets that are fetched at a time."""
Sets = Callable[[], Mapping[str, KeySet]]


class NoRedirects(HTTPRedirectHandler):
    """Goes nowhere but to the address that the settings name."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse; the answer counts as an error then."""


def fetch(url: str) -> Mapping[str, VerifyingKey]:
    """Return the keys behind an address; blocks. Raises OSError or ValueError, without the URL."""
    deadline = time.monotonic() + WITHIN
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "roomcast"})
    document = b""
    try:
        with _opener(url).open(request, timeout=STEP_WITHIN) as response:
            while piece := response.read1(BYTES):
                document += piece
                if len(document) > BYTES:
                    raise ValueError(f"the set is over {BYTES} bytes")

                if time.monotonic() > deadline:
                    raise TimeoutError(f"the set took over {WITHIN:g} seconds")
    except HTTPError as error:
        error.close()
        raise OSError(f"it answered {error.code}") from None
    except HTTPException as error:
        raise OSError(f"the answer is no HTTP: {type(error).__name__}") from None

    return read_jwks(document)


def site_of(url: str) -> str:
    """Name the host and the port of an address, and nothing else of it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _opener(url: str) -> OpenerDirector:
    """Make an opener; a proxy of the environment is for other machines only."""
    here = is_loopback(urlsplit(url).hostname or "")
    return build_opener(NoRedirects, *([ProxyHandler({})] if here else []))


class KeyFetcher:
    """Keeps the sets of some tenants fresh for as long as it runs."""

    def __init__(self, sets: Sets, clock: Clock, owner: Callable[[str], str]) -> None:
        """Take what says which sets there are, and whose the one behind an address is."""
        self._sets, self._clock, self._owner = sets, clock, owner
        self._changed, self._settled = anyio.Event(), anyio.Event()

    def miss(self, sets: Mapping[str, KeySet]) -> None:
        """Note that a key is in none of these, so that they are asked again before their time."""
        for each in sets.values():
            if each.miss():
                self.wake()

    def wake(self) -> None:
        """Look again at what is due."""
        self._changed.set()

    async def settled(self) -> None:
        """Wait until all have been asked once; every asking has a deadline."""
        await self._settled.wait()

    async def run(self) -> None:
        """Fetch what is due until cancelled."""
        limiter = CapacityLimiter(THREADS)
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                now = self._clock.monotonic()
                sets = self._sets()
                for url, keys in sets.items():
                    if keys.due() <= now:
                        keys.ask(now)
                        tasks.start_soon(self._fetch, url, keys, limiter)

                if not any(keys.asking for keys in sets.values()):
                    self._settled.set()

                due = min((keys.due() for keys in sets.values()), default=math.inf)
                with anyio.move_on_after(due - now):
                    await self._changed.wait()

    async def _fetch(self, url: str, keys: KeySet, limiter: CapacityLimiter) -> None:
        """Fetch one set; a failure is logged once, by the host and the port alone."""
        failure = ""
        try:
            with anyio.fail_after(2 * WITHIN):
                found = await to_thread.run_sync(
                    fetch, url, abandon_on_cancel=True, limiter=limiter
                )
        except (OSError, ValueError) as error:
            failure = str(error) or type(error).__name__
            keys.failed(self._clock.monotonic())
        else:
            keys.took(found, self._clock.monotonic())

        if failure and failure != keys.said:
            where = f"{self._owner(url)}: the keys at {site_of(url)}"
            log.warning("%s could not be fetched: %s", where, failure)

        keys.said = failure
        self.wake()
