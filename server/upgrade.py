"""The opening handshake (RFC 6455, section 4) without I/O: a request head becomes an ASGI scope.

Heads are read by h11; answers are a few lines and written here, for a flood has many refused.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import h11
from websockets.utils import accept_key

from server.deflate import negotiate

Headers = list[tuple[bytes, bytes]]

HEAD_BYTES = 16 * 1024
"""Bytes of a request head."""
HEADERS = 128
"""Header lines of a request head."""
VERSION = b"13"
KEY_BYTES = 16
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
_FORGED = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CLOSE = (b"connection", b"close")


class BadUpgrade(Exception):
    """The request cannot become a WebSocket; the answer is an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Headers | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or []


class Request(NamedTuple):
    """The head of a request; names of headers are in lower case."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    ends: Any = None
    """Addresses of this side and of the peer, where the parser knows them already."""


class HeadReader:
    """Takes the bytes of one request head."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def receive(self, data: bytes) -> Request | None:
        """Take bytes; return the head once it is whole. Raises BadUpgrade if it is no HTTP."""
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
            if not isinstance(event, h11.Request):
                return None

            self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise BadUpgrade(error.error_status_hint, str(error)) from None

        return Request(event.method, event.target, event.http_version, list(event.headers))

    @property
    def trailing(self) -> bytes:
        """What came behind the head: frames of an eager client."""
        return self._http.trailing_data[0]


class Upgrade:
    """One opening handshake."""

    __slots__ = ("_headers", "_target", "request")

    def __init__(self, request: Request) -> None:
        """Check the request. Raises BadUpgrade."""
        check(request)
        self.request = request
        self._target, self._headers = request.target, request.headers

    def scope(self, base: dict[str, Any]) -> dict[str, Any]:
        """Add what the request says to the parts of an ASGI scope that the server knows."""
        path, _, query = self._target.partition(b"?")
        offered = self._values(b"sec-websocket-protocol")
        base |= {
            "type": "websocket",
            "http_version": "1.1",
            "path": base["root_path"] + unquote(path.decode("ascii")),
            "raw_path": base["root_path"].encode() + path,
            "query_string": query,
            "headers": self._headers,
            "subprotocols": [
                token.strip() for line in offered for token in line.split(",") if token.strip()
            ],
        }
        return base

    def negotiate_deflate(self) -> str | None:
        """Return the answer to the client's offers of permessage-deflate, or None."""
        return negotiate(self._values(b"sec-websocket-extensions"))

    def accept(self, subprotocol: str | None, extension: str | None, extra: Headers) -> bytes:
        """Build the head that makes it a WebSocket. Raises ValueError."""
        key = accept_key(self._values(b"sec-websocket-key")[0]).encode()
        headers = [(b"Sec-WebSocket-Accept", key)]
        if subprotocol:
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))

        if extension:
            headers.append((b"Sec-WebSocket-Extensions", extension.encode()))

        return _head(SWITCHING, [*headers, *extra])

    def _values(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self._headers if key == name]


def refusal(bad: BadUpgrade) -> bytes:
    """Build the whole answer to a request that cannot become a WebSocket."""
    body = bad.sentence.encode()
    about = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    return denial_head(bad.status, [*about, *bad.headers]) + body


def denial_head(status: int, headers: Headers) -> bytes:
    """Build the head of an answer that refuses; the body ends with the connection.

    How that is framed is not for the application to say. Raises ValueError.
    """
    line = f"HTTP/1.1 {status} {phrase(status)}".encode()
    kept = [each for each in headers if each[0] != b"transfer-encoding" and each != _CLOSE]
    return _head(line, [*kept, _CLOSE])


def _head(first: bytes, headers: Headers) -> bytes:
    lines = [name + b": " + value for name, value in headers]
    if _FORGED.search(b"".join(lines)):
        raise ValueError("a header of the answer has a control character in it")

    return b"\r\n".join([first, *lines, b"", b""])


def phrase(status: int) -> str:
    """Return the words of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def asks_for_websocket(version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether a request wants to become a WebSocket; HTTP/1.0 cannot (RFC 9110, 7.8)."""
    upgrade = connection = False
    for key, value in headers:
        if key == b"upgrade":
            upgrade = upgrade or b"websocket" in _tokens(value)
        elif key == b"connection":
            connection = connection or b"upgrade" in _tokens(value)

    return version == b"1.1" and upgrade and connection


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.lower().split(b",")]


def check(request: Request) -> None:
    """Refuse a request that is no opening handshake. Raises BadUpgrade."""
    if len(request.headers) > HEADERS:
        raise BadUpgrade(431, f"the request has over {HEADERS} headers")

    if _size(request) > HEAD_BYTES:
        raise BadUpgrade(431, f"the head of the request is over {HEAD_BYTES} bytes")

    if request.method != b"GET":
        raise BadUpgrade(405, "a WebSocket begins with GET", [(b"allow", b"GET")])

    if not asks_for_websocket(request.version, request.headers):
        upgrade = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        raise BadUpgrade(426, "this address speaks WebSocket only", upgrade)

    fields = dict(request.headers)
    if fields.get(b"sec-websocket-version") != VERSION:
        raise BadUpgrade(
            426, "Sec-WebSocket-Version must be 13", [(b"sec-websocket-version", VERSION)]
        )

    names = [key for key, _ in request.headers]
    if names.count(b"sec-websocket-version") > 1 or names.count(b"sec-websocket-key") > 1:
        raise BadUpgrade(400, "Sec-WebSocket-Version and Sec-WebSocket-Key come once")

    if not _is_key(fields.get(b"sec-websocket-key", b"")):
        raise BadUpgrade(400, "Sec-WebSocket-Key must be the base64 of 16 bytes")

    if fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields:
        raise BadUpgrade(400, "an upgrade has no body")


def _size(request: Request) -> int:
    return len(request.target) + sum(len(key) + len(value) + 4 for key, value in request.headers)


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
