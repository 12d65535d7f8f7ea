"""The subjects that are no Python: the floor in C, nchan, the brokers, and Node."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.marker import ENGINE_IO, NATS, WEBSOCKET
from benchmarks.peers.sockets import Script
from benchmarks.peers.subject import (
    HERE,
    INSTALL,
    Subject,
    installed,
    package_version,
    program,
    said,
)
from server.load.frames import BINARY, TEXT, pack

NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
MODULES = HERE / "node" / "node_modules"
FILES = 20_000
"""Connections that a server may be asked to hold."""


class Floor(Subject):
    """The cheapest server that sends each message to each listener by itself."""

    name, label = "floor", "floor (C)"
    about = (
        "epoll, one `send()` for each listener and message, the least without joining messages; "
        "`benchmarks/peers/floor.c`"
    )

    def missing(self) -> str:
        """Say whether a compiler is there."""
        return installed("gcc")

    def version(self) -> str:
        """Name the compiler."""
        return said("gcc", "--version").splitlines()[0] + ", -O2"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Compile it, which takes a moment."""
        binary = str(folder / "floor")
        source = str(HERE / "floor.c")
        subprocess.run(["gcc", "-O2", "-o", binary, source], check=True, timeout=60)
        return [binary, str(port)]


class Nchan(Subject):
    """nginx with the nchan module."""

    name, label = "nchan", "nchan"
    about = "nginx with one worker, WebSocket both ways, messages not stored"
    forks = True

    def missing(self) -> str:
        """Say whether nginx and its module are there."""
        return installed("nginx") or ("" if NCHAN.exists() else f"nchan is missing; {INSTALL}")

    def version(self) -> str:
        """Name nginx and the module."""
        nginx = said(program("nginx"), "-v").removeprefix("nginx version: ")
        module = package_version("libnginx-mod-nchan").rpartition(":")[2]
        return f"nchan {module}, {nginx.replace('/', ' ')}"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Write the configuration."""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)
        config = folder / "nginx.conf"
        config.write_text(f"""\
load_module {NCHAN};
worker_processes 1;
worker_rlimit_nofile {FILES};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections {FILES}; }}
http {{
    access_log off;
{paths}
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        tcp_nodelay on;
        location = /listen {{ nchan_subscriber websocket; nchan_channel_id room;
                              nchan_store_messages off; }}
        location = /publish {{ nchan_publisher websocket; nchan_channel_id room;
                               nchan_store_messages off; }}
    }}
}}
""")
        return [program("nginx"), "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)]


class Mosquitto(Subject):
    """An MQTT broker."""

    name, label = "mosquitto", "mosquitto"
    about = "MQTT over WebSocket, QoS 0"
    pings = ()
    publisher = Script(
        "/mqtt",
        (
            pack(BINARY, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"),
            re.compile(rb"\x20\x02\0\0"),
        ),
        subprotocol="mqtt",
    )
    listen = Script(
        "/mqtt",
        *publisher.steps,
        (pack(BINARY, b"\x82\x09\x00\x01\x00\x04room\x00"), re.compile(rb"\x90\x03\x00\x01\x00")),
        subprotocol="mqtt",
    )

    def missing(self) -> str:
        """Say whether the broker is there."""
        return installed("mosquitto")

    def version(self) -> str:
        """Name the broker."""
        return said(program("mosquitto"), "-h").splitlines()[0].replace(" version", "")

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Write the configuration."""
        config = folder / "mosquitto.conf"
        # It wants a listener of its own kind, and binds WebSockets to one address for IPv4 only.
        config.write_text(
            f"user root\nlistener 0 {folder}/socket\n"
            f"listener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n"
            "allow_anonymous true\nset_tcp_nodelay true\nlog_type error\n"
        )
        return [program("mosquitto"), "-c", str(config)]

    def publication(self, payload: bytes) -> bytes:
        """Make a PUBLISH packet."""
        size, length = len(payload) + 6, b""
        while size > 127:
            size, low = size >> 7, size & 127
            length += bytes([low | 128])

        return pack(BINARY, b"\x30" + length + bytes([size]) + b"\x00\x04room" + payload)


class Nats(Subject):
    """A message broker that is known to be fast."""

    name, label = "nats", "nats-server"
    about = "the NATS protocol over WebSocket, no TLS"
    pings = (NATS, WEBSOCKET)
    publisher = Script(
        "/",
        (
            pack(BINARY, b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nPING\r\n'),
            re.compile(rb"PONG\r\n"),
        ),
    )
    listen = Script(
        "/",
        *publisher.steps,
        (pack(BINARY, b"SUB room 1\r\nPING\r\n"), re.compile(rb"PONG\r\n")),
    )

    def missing(self) -> str:
        """Say whether the broker is there."""
        return installed("nats-server")

    def version(self) -> str:
        """Name the broker."""
        return said(program("nats-server"), "-v").replace(": v", " ")

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Write the configuration."""
        config = folder / "nats.conf"
        config.write_text(
            'listen: "127.0.0.1:-1"\n'
            f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n'
        )
        return [program("nats-server"), "-c", str(config)]

    def publication(self, payload: bytes) -> bytes:
        """Make a PUB command."""
        return pack(BINARY, b"PUB room %d\r\n%b\r\n" % (len(payload), payload))


class Ws(Subject):
    """The plain WebSocket package of Node."""

    name, label = "ws", "ws (Node)"
    about = "the package's own broadcast loop"
    script = "fanout_ws.mjs"
    package = "ws"

    def missing(self) -> str:
        """Say whether Node and the package are there."""
        there = (MODULES / self.package).exists()
        return installed("node") or ("" if there else f"{self.package} is missing; {INSTALL}")

    def version(self) -> str:
        """Name the package and Node."""
        found = json.loads((MODULES / self.package / "package.json").read_text())
        return f"{self.package} {found['version']}, Node {said('node', '--version')[1:]}"

    def command(self, port: int, folder: Path) -> Sequence[str]:
        """Start the script."""
        return ["node", str(HERE / "node" / self.script), str(port)]


class SocketIo(Ws):
    """Socket.IO on Node."""

    name, label = "socketio", "Socket.IO (Node)"
    about = "a room, WebSocket transport only"
    script = "fanout_socketio.mjs"
    package = "socket.io"
    pings = (ENGINE_IO, WEBSOCKET)
    listen = Script(
        "/socket.io/?EIO=4&transport=websocket&role=listen",
        (b"", re.compile(rb"0\{[^}]*\}")),
        (pack(TEXT, b"40"), re.compile(rb"40\{[^}]*\}")),
    )
    publisher = Script("/socket.io/?EIO=4&transport=websocket&role=publish", *listen.steps)

    def publication(self, payload: bytes) -> bytes:
        """Make an event."""
        return pack(TEXT, b'42["publish","%b"]' % payload)
