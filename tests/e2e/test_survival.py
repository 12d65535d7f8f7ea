"""What a server lives through, and what it does not live on after."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from tests.e2e.clients import client
from tests.e2e.conftest import LEAN, Serve
from tests.engine_contract import CARDS, recording
from tests.processes import answers, ends_within
from tests.servers import READY_WITHIN, ROOT, Server

pytestmark = pytest.mark.anyio

SPEECH = recording(CARDS / "001.wav")
SAID = "ten of clubs"


@contextmanager
def descriptors(server: Server, free: int) -> Iterator[None]:
    """Leave a running server so few file descriptors."""
    pid = server.process.pid
    used = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    unused = (number for number in range(len(used) + free + 1) if number not in used)
    limit = [next(unused) for _ in range(free + 1)][-1]
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def files(server: Server) -> int:
    """Count the descriptors that a server holds."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def zygote(server: Server) -> psutil.Process:
    (process,) = psutil.Process(server.process.pid).children()
    return process


@LEAN
async def test_a_server_that_runs_out_of_descriptors_refuses_speech_and_recovers(
    serve: Serve,
) -> None:
    server = serve()
    async with client(f"{server.ws}/v1/connect") as peer:
        await peer.ask(type="ping", id=0)
        idle = files(server)
        async with client(f"{server.ws}/v1/rooms/a/speak") as first:
            await first.until("speech", lambda event: event["state"] == "ready")
            assert files(server) > idle

        with anyio.fail_after(READY_WITHIN):
            while files(server) > idle:  # or what the first one gives back soon is room enough
                await peer.ask(type="ping", id=0)

        warm = zygote(server)
        with descriptors(server, 1):
            await peer.send(type="start", room="a", id=1)
            refused = await peer.until("error")
            assert (refused["code"], refused["id"]) == ("engine_busy", 1)

        assert zygote(server) == warm
        await peer.ask(type="join", room="a", id=2)
        await peer.send(type="start", room="a", id=3)
        await peer.until("speech", lambda event: event["state"] == "ready")
        await peer.audio(SPEECH)
        await peer.send(type="stop", id=4)
        (final,) = await peer.finals(1)
        assert final["text"] == SAID
        assert server.metric('roomcast_engine_restarts_total{engine="embedded"}') == 0


@LEAN
async def test_a_zygote_that_dies_while_descriptors_are_out_is_replaced_once_they_are_not(
    serve: Serve,
) -> None:
    server = serve()
    async with client(f"{server.ws}/v1/connect") as peer:
        await peer.send(type="start", room="a", id=1)
        await peer.until("speech", lambda event: event["state"] == "ready")
        with descriptors(server, 0):
            zygote(server).kill()
            while "Too many open files" not in server.output:
                await peer.ask(type="ping", id=2)

    async with client(f"{server.ws}/v1/rooms/a/speak") as speaker:
        await speaker.until("speech", lambda event: event["state"] == "ready")

    assert answers(f"{server.http}/readyz")
    assert server.process.poll() is None


BROKEN = """
import anyio
from server import node
from server.backplanes.memory import MemoryBackplane
from server.cli import main

class Broken(MemoryBackplane):
    async def run(self, deliver, started):
        self.bug = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(super().run, deliver, started)
            await self.bug.wait()
            raise RuntimeError("planted")

    async def publish(self, key, event):
        position = await super().publish(key, event)
        if key.endswith("/bug"):
            self.bug.set()

        return position

node.MemoryBackplane = Broken
main()
"""


def start_broken(server: Server) -> None:
    command = (sys.executable, "-c", BROKEN, "serve", "--dev", "--port", str(server.port))
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    deadline = time.monotonic() + READY_WITHIN
    while not answers(f"{server.http}/readyz"):
        assert time.monotonic() < deadline, server.output
        assert not ends_within(server.process, 0.05), server.output


async def test_a_bug_that_ends_the_node_ends_the_process_with_an_error(tmp_path: Path) -> None:
    """A supervisor starts it again; the clients are told to come back."""
    server = Server(tmp_path / "log")
    try:
        start_broken(server)
        async with (
            client(f"{server.ws}/v1/rooms/a/listen") as listener,
            client(f"{server.ws}/v1/rooms/a/speak") as speaker,
        ):
            await speaker.until("speech", lambda event: event["state"] == "ready")
            await speaker.ask(type="publish", room="bug", data=1, id=1)
            for peer in (listener, speaker):
                assert (await peer.closed())[0] == 1012

        assert await anyio.to_thread.run_sync(server.wait) == 1
        assert server.output.count("planted") == 1
    finally:
        server.kill()
