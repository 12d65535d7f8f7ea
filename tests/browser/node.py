"""What a browser test plays with: a server process, a cable that can be cut, and a publisher."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.processes import free_port
from tests.servers import Server

ACK_WITHIN = 10.0


class Node(Server):
    """A server that a browser talks to."""

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"{self.http}/"

    def publish(self, room: str, *values: object) -> None:
        """Publish values to a room and wait until the server has taken them."""
        url = f"ws://127.0.0.1:{self.port}/v1/connect"
        with connect(url, subprotocols=[Subprotocol("roomcast.v1")]) as ws:
            for number, value in enumerate(values):
                command = {"type": "publish", "id": number, "room": room, "data": value}
                ws.send(json.dumps(command))
                while (event := json.loads(ws.recv(ACK_WITHIN)))["type"] != "ack":
                    assert event["type"] != "error", event

    def segments(self, room: str) -> list[str]:
        """Return the segments of the finals that a room remembers."""
        url = f"ws://127.0.0.1:{self.port}/v1/rooms/{room}/listen?history=100&partials=false"
        with connect(url) as ws:
            while (event := json.loads(ws.recv(ACK_WITHIN)))["type"] != "joined":
                pass

            newest, found, offset = event["offset"], [], 0
            while offset < newest:
                event = json.loads(ws.recv(ACK_WITHIN))
                offset = event["offset"]
                found.append(event["segment"])

        return found


@contextmanager
def running_node(log: Path) -> Iterator[Node]:
    """Run a node until the end of the block."""
    node = Node(log)
    node.start()
    try:
        yield node
        node.stop()
    finally:
        if node.process.poll() is None:
            node.kill()


class Cable:
    """A TCP way to a node that can be cut, for everybody at once, and mended."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ends: list[socket.socket] = []
        self.port = free_port()
        self.mend()

    @property
    def url(self) -> str:
        """Address of the page, by way of the cable."""
        return f"http://127.0.0.1:{self.port}/"

    def mend(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection and refuse the next ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._node.port))
                self._ends += (near, far)
                for source, target in ((near, far), (far, near)):
                    Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one end hangs up; each pump closes the socket that it reads."""
    with source, suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)

        target.shutdown(socket.SHUT_WR)
