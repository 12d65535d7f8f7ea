"""A double of Rev.ai that answers at once: `python -m benchmarks.relay.double` prints its port.

It must not be what is measured, so it is a raw protocol and does no more than it takes to check the
audio. For every 10 frames that it has heard there is a partial and for every 50 a final; the last
word of a result is the mark of the frame that caused it.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterator
from typing import cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop
from websockets.utils import accept_key

from actors.wire import pack_frame
from benchmarks.relay.tape import FINAL, PACE_MS, PARTIAL, PATH, TOKEN, WORD, Tape, mark
from server.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, Payload, close_frame
from server.load.target import HOST

BACKLOG = 1024
LARGEST = 1 << 20
"""Bytes of a message, at most."""


class Hypotheses:
    """What is said of the audio of one speaker. Pure: counts in, messages out."""

    def __init__(self, start: float = 0.0) -> None:
        """Begin with an audio whose first frame is at `start` seconds."""
        self._start, self._said = start, 0

    def at(self, frames: int, wrong: int) -> bytes:
        """Return the message that is due when so many frames were heard, or nothing."""
        if frames % FINAL == 0:
            return self.final(frames, wrong)

        return self._message("partial", frames, wrong) if frames % PARTIAL == 0 else b""

    def final(self, frames: int, wrong: int) -> bytes:
        """Close the segment here; nothing if it would be empty."""
        if frames == self._said:
            return b""

        message = self._message("final", frames, wrong)
        self._said = frames
        return message

    def _message(self, kind: str, frames: int, wrong: int) -> bytes:
        words = list(self._words(frames, wrong, timed=kind == "final"))
        if kind == "final":
            space: dict[str, object] = {"type": "punct", "value": " "}
            words = [each for word in words for each in (space, word)][1:]
            words.append({"type": "punct", "value": "."})

        times = {"ts": self._time(self._said), "end_ts": self._time(frames)}
        return msgspec.json.encode({"type": kind, **times, "elements": words})

    def _words(self, frames: int, wrong: int, timed: bool) -> Iterator[dict[str, object]]:
        for begin in range(self._said, frames, WORD):
            end = min(begin + WORD, frames)
            word: dict[str, object] = {"type": "text", "value": mark(end, wrong)}
            times = {"ts": self._time(begin), "end_ts": self._time(end), "confidence": 1.0}
            yield word | times if timed else word

    def _time(self, frames: int) -> float:
        return round(self._start + frames * PACE_MS / 1000, 2)


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        """The request as far as it has come; nothing once it is answered."""
        self._frames = FrameReader(LARGEST)
        self._tape, self._hypotheses = Tape(), Hypotheses()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take the request, then messages."""
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = None if end else head
            if not end:
                return

            self._accept(head.decode("latin-1"))

        self._frames.feed(data)
        while not self._transport.is_closing() and (found := self._frames.next()) is not None:
            self._take(*found)

    def _accept(self, head: str) -> None:
        line, *lines = head.split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        url = urlsplit(line.split(" ")[1])
        if url.path != PATH or "sec-websocket-key" not in headers:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()
            return

        accept = accept_key(headers["sec-websocket-key"])
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept.encode()
        )
        query = parse_qs(url.query)
        if query.get("access_token") != [TOKEN]:
            self._close(4001, "access_token is missing or invalid")
        elif "content_type" not in query:
            self._close(4002, "Bad Request: content_type is missing")
        else:
            self._hypotheses = Hypotheses(float(query.get("start_ts", ["0"])[0]))
            self._say(b'{"type":"connected","id":"double"}')

    def _take(self, opcode: int, payload: Payload) -> None:
        if opcode == CLOSE:
            if not self._closing:
                self._transport.write(pack_frame(CLOSE, cast(bytes, payload)[:2]))

            self._transport.close()
        elif opcode == PING:
            self._transport.write(pack_frame(PONG, cast(bytes, payload)))
        elif opcode == BINARY and not self._closing:
            self._hear(cast(bytes, payload))
        elif opcode == TEXT and not self._closing:
            self._end(payload)

    def _hear(self, audio: bytes) -> None:
        tape = self._tape
        for frames in tape.take(audio):
            if frames % PARTIAL == 0:
                self._say(self._hypotheses.at(frames, tape.wrong))

    def _end(self, text: Payload) -> None:
        if text != "EOS":
            self._close(1007, "the only text is EOS")
            return

        self._tape.end()
        if last := self._hypotheses.final(self._tape.frames, self._tape.wrong):
            self._say(last)

        self._close(1000, "Normal Closure.")

    def _say(self, message: bytes) -> None:
        self._transport.write(pack_frame(TEXT, message))

    def _close(self, code: int, reason: str) -> None:
        self._closing = True
        self._transport.write(close_frame(code, reason))


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Stream, HOST, 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
