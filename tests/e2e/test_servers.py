"""Other ASGI servers than ours carry the same app, by the stock adapter or by the lean class."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import msgspec
import pytest
from anyio import to_thread

from tests.e2e.clients import client
from tests.processes import answers, free_port, running

pytestmark = pytest.mark.anyio

WITHIN = 5
UVICORN = (
    "uvicorn",
    "--no-access-log",
    "--log-level",
    "warning",
    "--timeout-graceful-shutdown",
    "3",
)
HYPERCORN = ("hypercorn", "--graceful-timeout", "3", "--log-level", "warning")
SERVERS = {
    "uvicorn, sansio": (*UVICORN, "--ws", "websockets-sansio", "--loop", "uvloop"),
    "uvicorn, wsproto": (*UVICORN, "--ws", "wsproto", "--loop", "asyncio"),
    "uvicorn, lean": (*UVICORN, "--ws", "server.protocol:LeanWebSocket", "--loop", "asyncio"),
    "hypercorn, asyncio": (*HYPERCORN, "--worker-class", "asyncio"),
    "hypercorn, trio": (*HYPERCORN, "--worker-class", "trio"),
}


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Start a server and return where its WebSockets are."""
    module, *options = SERVERS[request.param]
    port, log = free_port(), tmp_path / "log"
    where = ["--bind", f"127.0.0.1:{port}"] if module == "hypercorn" else ["--port", str(port)]
    command = [sys.executable, "-m", module, "tests.e2e.app:app", *where, *options]
    with running(log, *command) as wait_until:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield f"ws://127.0.0.1:{port}"

    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_speech_and_messages_reach_the_room(url: str, codec: str) -> None:
    async with client(f"{url}/v1/rooms/a/listen", codec) as listener:
        await listener.until("joined")
        async with client(f"{url}/v1/rooms/a/speak?engine=echo") as speaker:
            await speaker.audio(bytes(64_000))
            await speaker.send(type="stop")
            assert await speaker.closed() == (1000, "normal")

        assert [final["text"] for final in await listener.finals(2)] == ["echo 1", "echo 2"]
        async with client(f"{url}/v1/connect", codec) as other:
            assert (await other.ask(type="publish", room="a", data=[1], id=1))["offset"] == 3
            assert (await other.ask(type="nonsense", id=2))["code"] == "bad_message"

        assert (await to_thread.run_sync(post, url, "a", [2]))["offset"] == 4
        assert [message["data"] for message in await listener.messages(2)] == [[1], [2]]


def post(url: str, room: str, data: object) -> dict[str, object]:
    """Publish over HTTP; return the answer."""
    body = msgspec.json.encode({"data": data})
    address = f"{url.replace('ws:', 'http:')}/v1/rooms/{room}/messages"
    with urlopen(Request(address, body), timeout=WITHIN) as response:
        answer: dict[str, object] = msgspec.json.decode(response.read())

    return answer
