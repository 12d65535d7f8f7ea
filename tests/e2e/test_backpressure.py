"""An engine that stalls: the client is slowed, the server holds little, nothing is lost."""

from __future__ import annotations

import socket

import anyio
import pytest

from tests.e2e.clients import Client, client
from tests.e2e.conftest import Serve
from tests.engine_contract import LIBRIVOX, SILENCE, recording
from tests.servers import Server

pytestmark = pytest.mark.anyio

FRAME = 1280
BUFFERS = 600_000
"""Bytes between the ends besides the channels: sockets, loops, and the worker's pipe."""
SPEECH = b"".join(recording(path) + SILENCE for path in sorted(LIBRIVOX.glob("*.wav")))


async def dictate(server: Server, room: str, pause: bool) -> list[str]:
    """Speak all recordings as fast as the server takes them; return the finals."""
    async with (
        client(f"{server.ws}/v1/rooms/{room}/listen?partials=false") as listener,
        client(f"{server.ws}/v1/rooms/{room}/speak", sock=narrow(server)) as speaker,
    ):
        await listener.until("joined")
        await speaker.until("speech", lambda event: event["state"] == "ready")
        if pause:
            await stall(server, speaker)
        else:
            await speaker.audio(SPEECH, FRAME)

        await speaker.send(type="stop")
        assert await speaker.closed() == (1000, "normal")
        await listener.send(type="ping", id="end")
        await listener.until("ack")
        return [event["text"] for event in listener.events if event["type"] == "transcript"]


def narrow(server: Server) -> socket.socket:
    """Connect with a send buffer so small that what was sent is soon the server's."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    sock.connect(("127.0.0.1", server.port))
    return sock


async def stall(server: Server, speaker: Client) -> None:
    """Stop the engine, see that the sends wait and how much is held, and let it go on."""
    (worker,) = server.workers()
    before = server.metric('roomcast_channel_waited_total{channel="ingress"}')
    worker.suspend()
    sent = 0
    try:
        with anyio.move_on_after(3) as blocked:
            while sent < len(SPEECH):
                await speaker.socket.send(SPEECH[sent : sent + FRAME])
                sent += FRAME

        assert blocked.cancelled_caught, "the client was not slowed"
        assert server.metric('roomcast_channel_depth{channel="ingress"}') == 32
        assert server.metric('roomcast_channel_depth{channel="upstream"}') == 64
        assert server.metric('roomcast_channel_waited_total{channel="ingress"}') > before
        held = (32 + 64 + 3) * FRAME
        assert held < sent < held + BUFFERS
    finally:
        worker.resume()

    await speaker.audio(SPEECH[sent:], FRAME)


async def test_a_stalled_engine_slows_the_client_and_nothing_is_lost(serve: Serve) -> None:
    """Also not by a keepalive: while the server does not read, it cannot see the pongs."""
    server = serve(server__ping_interval=0.5, server__ping_timeout=0.5)
    fluent = await dictate(server, "fluent", pause=False)
    halting = await dictate(server, "halting", pause=True)
    assert len(fluent) >= 5
    assert halting == fluent
