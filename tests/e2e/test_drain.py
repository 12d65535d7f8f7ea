"""SIGTERM: what was said is delivered, everybody is told, and the process ends well."""

from __future__ import annotations

import socket

import anyio
import pytest

from tests.e2e.clients import client
from tests.e2e.conftest import Serve
from tests.engine_contract import LIBRIVOX, recording
from tests.processes import answers

pytestmark = pytest.mark.anyio

SPEECH = recording(min(LIBRIVOX.glob("*.wav")))
HALF = SPEECH[: len(SPEECH) // 4 * 2]


async def test_a_stop_in_mid_utterance_loses_no_final(serve: Serve) -> None:
    server = serve()
    async with (
        client(f"{server.ws}/v1/rooms/end/listen") as listener,
        client(f"{server.ws}/v1/rooms/end/speak") as speaker,
    ):
        await listener.until("joined")
        await speaker.audio(HALF)
        partial = await listener.until("transcript")
        assert partial["final"] is False
        server.terminate()
        final = await listener.until("transcript", lambda event: event["final"])
        assert "john dashwood" in final["text"]
        for peer in (listener, speaker):
            closing = await peer.until("closing")
            assert (closing["code"], closing["retry"]) == (1012, True)
            assert closing["reconnect_ms"] >= 1000
            assert await peer.closed() == (1012, "restart")

    assert server.wait() == 0


async def test_while_draining_the_node_is_alive_not_ready_and_takes_nobody(serve: Serve) -> None:
    import httpx2

    server = serve()
    async with client(f"{server.ws}/v1/rooms/end/speak") as speaker, httpx2.AsyncClient() as http:
        await speaker.until("speech", lambda event: event["state"] == "ready")
        (worker,) = server.workers()
        worker.suspend()
        try:
            server.terminate()
            with anyio.fail_after(10):
                while (answer := await http.get(f"{server.http}/readyz")).status_code == 200:
                    continue

            assert answer.json()["code"] == "draining"
            assert answers(f"{server.http}/livez")
            refused = await http.get(
                f"{server.http}/v1/connect",
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                },
            )
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        finally:
            worker.resume()

        assert await speaker.closed() == (1012, "restart")

    assert server.wait() == 0


async def test_a_peer_that_does_not_read_cannot_hold_up_the_stop(serve: Serve) -> None:
    from tests.e2e.test_slow import MESSAGES, SIZE, upgrade

    server = serve(limits__egress__flush_within=60, drain__within=2, limits__egress__age=60)
    stuck = upgrade(server, "/v1/rooms/deaf/listen", 4096)
    async with client(f"{server.ws}/v1/connect") as sender:
        while server.metric("roomcast_subscriptions") == 0:
            await sender.ask(type="ping", id=1)

        for n in range(MESSAGES // 10):
            await sender.ask(type="publish", id=n, room="deaf", data="x" * SIZE)

        server.terminate()
        assert await sender.closed() == (1012, "restart")

    with anyio.fail_after(15):
        assert await anyio.to_thread.run_sync(server.wait) == 0

    stuck.close()


async def test_answers_that_nobody_reads_cannot_hold_up_the_stop(serve: Serve) -> None:
    server = serve()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
        assert await anyio.to_thread.run_sync(stuck.recv, 1)
        server.terminate()
        with anyio.fail_after(15):
            assert await anyio.to_thread.run_sync(server.wait) == 0


async def test_a_second_signal_stops_at_once(serve: Serve) -> None:
    server = serve()
    async with client(f"{server.ws}/v1/rooms/end/speak") as speaker:
        await speaker.until("speech", lambda event: event["state"] == "ready")
        (worker,) = server.workers()
        worker.suspend()
        server.terminate()
        while answers(f"{server.http}/readyz"):
            continue

        server.terminate()
        with anyio.fail_after(8):
            assert await anyio.to_thread.run_sync(server.wait) == 0
