"""One stream through the package `rev_ai`, with a socket that keeps to deadlines.

Its one rule: the sending thread of the package never sees an exception, for nobody could catch it
there. It is told that the audio has ended; what went wrong is learned from the receiving side.
Imported when the engine is used: the package need not be installed.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import websocket
from rev_ai.models import MediaConfig
from rev_ai.streamingclient import RevAiStreamingClient

from actors.errors import UpstreamLost
from actors.messages import AudioSpec, Recognition
from server.engines.address import parse
from server.engines.dialect import Dialect
from server.engines.generator_options import RevAiSdk
from server.engines.handover import Audio

SWITCHING = 101
MESSAGE_BYTES = 1_048_576
"""Bytes that a message of Rev.ai may have; a longer one ends the connection."""
ERRORS = (OSError, websocket.WebSocketException)


class Socket(websocket.WebSocket):
    """The package's WebSocket, bounded in connecting, sending and receiving."""

    def __init__(self, options: RevAiSdk, audio: Audio) -> None:
        super().__init__(enable_multithread=True)
        self._options, self._audio = options, audio
        self._left, self._budget = False, MESSAGE_BYTES

    def connect(self, url: str, **options: Any) -> None:
        """Connect; each step has a deadline. Raises OSError or WebSocketException."""
        super().connect(url, socket=self._dial(), redirect_limit=0, **options)
        if (status := self.getstatus()) != SWITCHING:  # a redirect, which it takes for a success
            self.shutdown()
            raise websocket.WebSocketBadStatusException("HTTP status %s %s", status)

        self.settimeout(self._options.silent_within)
        if self._left:  # while there was no socket yet that could be cut
            self.cut()

    def _dial(self) -> socket.socket:
        """Return a socket with a deadline: the package's own has none, and leaks when refused."""
        address, within = parse(self._options.url), self._options.connect_within
        sock = socket.create_connection((address.host, address.port), within)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not address.secure:
            return sock

        with ExitStack() as failing:
            failing.callback(sock.close)
            secured = ssl.create_default_context().wrap_socket(sock, server_hostname=address.host)
            failing.pop_all()
            return secured

    def send(self, payload: Any, opcode: int = websocket.ABNF.OPCODE_TEXT) -> int:
        """Send a message; if that fails, end the audio, and cut the socket for who receives."""
        try:
            return int(super().send(payload, opcode))
        except ERRORS:
            self._audio.close()
            if opcode != websocket.ABNF.OPCODE_CLOSE:
                self.cut()

            return 0

    def recv_data(self, control_frame: bool = False) -> Any:
        """Return the opcode and data of the next message, which has a bound."""
        self._budget = MESSAGE_BYTES
        return super().recv_data(control_frame)

    def recv_frame(self) -> Any:
        """Return the next frame; a peer that is silent must answer a ping in the same time."""
        try:
            return super().recv_frame()
        except websocket.WebSocketTimeoutException:
            self.ping()
            return super().recv_frame()

    def _recv(self, bufsize: int) -> Any:
        data = super()._recv(bufsize)
        self._budget -= len(data)
        if self._budget < 0:
            raise websocket.WebSocketPayloadException("a message is too long")

        return data

    def cut(self) -> None:
        """Make every call that waits here return, in any thread."""
        self._left = True
        sock = self.sock
        if sock is not None:
            with suppress(OSError):  # it is not connected any more
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Session:
    """A client of the package, used once."""

    def __init__(self, dialect: Dialect, options: RevAiSdk, spec: AudioSpec, audio: Audio) -> None:
        self._dialect, self._options, self._audio = dialect, options, audio
        self._orderly = False
        media = MediaConfig("audio/x-raw", "interleaved", spec.rate, "S16LE", spec.channels)
        self._client = RevAiStreamingClient(
            options.token,
            media,
            on_error=self._failed,
            on_close=self._closed,
            on_connected=self._connected,
            url=options.url.rstrip("/"),
        )
        self._socket = self._client.client = Socket(options, audio)
        self._messages: Iterator[str] = iter(())

    def connect(self, parameters: dict[str, Any]) -> None:
        """Connect and begin to send. Raises Refused or UpstreamLost."""
        self._audio.on_leave(self._socket.cut)
        try:
            self._messages = self._client.start(self._pulled(), **parameters)
        except BaseException:
            self._end()
            raise

    def results(self) -> Iterator[Recognition]:
        """Yield what Rev.ai recognizes. Raises Refused or UpstreamLost."""
        try:
            for message in self._messages:
                if message:  # it makes an empty one of what is binary
                    yield from self._dialect.received(message)
        except ERRORS as error:
            raise self._lost(error) from None
        finally:
            self._end()

        if not self._orderly:
            raise self._dialect.lost("closed the stream without a code")

    def _pulled(self) -> Iterator[bytes]:
        """Yield the audio; the package says `EOS` after it."""
        for chunk in self._audio:
            self._dialect.sent(len(chunk))
            yield chunk

        self._dialect.ended = self._audio.ended

    def _failed(self, error: Exception) -> None:
        """End what could not connect: the package would go on without a socket."""
        if isinstance(error, websocket.WebSocketBadStatusException):
            raise self._dialect.refused(error.status_code, {}) from None

        raise self._lost(error) from None

    def _connected(self, job: str) -> None:
        self._dialect.ready = True

    def _closed(self, code: int, reason: str) -> None:
        """Say what a close means; that `results` is over then ends the audio."""
        if (ending := self._dialect.closed(code, reason)) is not None:
            raise ending

        self._orderly = True

    def _end(self) -> None:
        """Stop sending, wait for the thread that does it, and free the socket."""
        self._audio.close()
        self._socket.cut()
        sending = getattr(self._client, "request_thread", None)
        if sending is not None and sending.is_alive():
            sending.join(self._options.connect_within)

        self._socket.shutdown()

    def _lost(self, error: Exception) -> UpstreamLost:
        if isinstance(error, websocket.WebSocketTimeoutException | TimeoutError):
            return self._dialect.lost("was silent for too long")

        words = self._dialect.printable(str(error))
        return self._dialect.lost(f"lost its connection: {type(error).__name__}: {words}")
