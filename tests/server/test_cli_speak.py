"""roomcast speak: what it takes, what it says of what it cannot take, and how it ends."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from tests.server.commands import (
    piping,
    pretending,
    read_line,
    roomcast,
    running,
    terminal,
    write_wav,
)
from tests.servers import Server, serving
from tests.tokens import mint, tenant

SECONDS = 3
PCM = bytes(SECONDS * 32000)
FINALS = "echo 1\necho 2\necho 3\n"
FAST = ("--room", "r", "--rate", "max")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose only engine is echo, with one stream."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(
        log, engines__enabled="echo", engines__echo__max_streams=1, speech__resume_grace=0
    ) as running:
        yield running


def wav_head(size: int, kind: int = 1, bits: int = 16, extra: bytes = b"") -> bytes:
    """Return the head of a mono WAV file of 16 kHz that promises so many bytes of audio."""
    form = struct.pack("<HHIIHH", kind, 1, 16000, 32000, bits // 8, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST\x03\0\0\0abc\0data"
    return b"RIFF\xff\xff\xff\xffWAVE" + chunks + struct.pack("<I", size)


def test_a_wav_file_raw_pcm_and_both_by_pipe_give_their_finals(
    server: Server, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "audio.wav", PCM)
    stereo = write_wav(tmp_path / "stereo.wav", bytes(SECONDS * 176400), 44100, 2)
    extensible = tmp_path / "extensible.wav"
    extra = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    extensible.write_bytes(wav_head(len(PCM), 0xFFFE, extra=extra) + PCM)
    raw = tmp_path / "audio.raw"
    raw.write_bytes(PCM)
    with wav.open("rb") as redirected:
        for file, stdin in (
            (wav, b""),
            (stereo, b""),
            (extensible, b""),
            (raw, b""),
            ("-", PCM),
            ("-", wav.read_bytes()),
            ("-", wav_head(0xFFFFFFFF) + PCM),
            ("-", redirected),
        ):
            done = roomcast("speak", file, *FAST, stdin=stdin, ROOMCAST_URL=server.http)
            assert (done.returncode, done.stdout) == (0, FINALS), (file, done.stderr)
            assert done.stderr.startswith("3.0 s of audio, 3 finals, ")


def test_json_is_the_events_one_a_line(server: Server) -> None:
    done = roomcast("speak", "-", *FAST, "--json", "--url", server.http, stdin=PCM)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["type"] == "hello"
    assert [event["text"] for event in events if event.get("final")] == FINALS.splitlines()
    assert events[-1]["type"] == "closing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (wav_head(0), "is a WAV file without audio"),
        (wav_head(len(PCM)), "is a WAV file without audio"),
        (wav_head(len(PCM))[:20], "is a WAV file with a broken head"),
        (wav_head(len(PCM))[:40], "is a WAV file that ends before its audio begins"),
        (b"RIFF", "is a WAV file that ends before its audio begins"),
        (wav_head(4, bits=8) + PCM, "has 8-bit samples; 16-bit PCM is needed, as `ffmpeg -i "),
        (wav_head(4, kind=3, bits=32) + PCM, "has 32-bit samples of format 3; 16-bit PCM"),
        (b"ID3\x04" + PCM, "is MP3; 16-bit PCM is needed, as `ffmpeg -i "),
        (b"OggS" + PCM, "is Ogg; 16-bit PCM is needed"),
    ],
)
def test_audio_that_cannot_be_sent_is_status_2(
    server: Server, tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "audio"
    file.write_bytes(content)
    done = roomcast("speak", file, *FAST, "--url", server.http)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {file} {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_cannot_be_opened_is_status_2(tmp_path: Path) -> None:
    missing = tmp_path / "missing.wav"
    assert roomcast("speak", missing, *FAST).stderr == (
        f"Error: {missing}: No such file or directory\n"
    )
    assert roomcast("speak", tmp_path, *FAST).stderr == f"Error: {tmp_path} is a directory\n"
    assert roomcast("speak", missing, *FAST).returncode == 2


def test_a_closed_or_empty_standard_input_is_status_2(server: Server) -> None:
    done = roomcast("speak", "-", *FAST, "--url", server.http)
    assert (done.returncode, done.stderr) == (2, "Error: standard input is empty\n")
    with running("speak", "-", *FAST, preexec_fn=lambda: os.close(0)) as command:
        assert command.note() == "Error: standard input: Bad file descriptor\n"
        assert command.wait() == 2


def test_a_truncated_file_is_sent_and_told(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "cut.wav"
    file.write_bytes(wav_head(len(PCM)) + PCM[:48000])
    done = roomcast("speak", file, *FAST, "--url", server.http)
    assert (done.returncode, done.stdout) == (0, "echo 1\necho 2\n")
    assert done.stderr.endswith("\nthe file ends 1.5 s early\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--room", "a b?c#d"], "a room's name is 1 to 128 of the characters"),
        (["--room", b"\xff".decode(errors="surrogateescape")], "a room's name is 1 to 128"),
        (["--room", "a/b"], "there is no WebSocket at /v1/rooms/a/b/speak"),
        (["--room", ""], "there is no WebSocket at /v1/rooms//speak"),
        (["--room", "r", "--engine", "parrot"], "the engines here are: echo"),
        (["--room", "r", "--name", "x" * 65], "name: Expected `str` of length <= 64"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(
    server: Server, flags: list[str], said: str
) -> None:
    done = roomcast("speak", "-", *flags, "--url", server.http, stdin=PCM)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_second_speaker_is_told_that_the_engine_is_busy(server: Server) -> None:
    with (
        piping() as (reading, pipe),
        running("speak", "-", *FAST, "--url", server.http, stdin=reading) as first,
    ):
        pipe.write(PCM[:32000])
        assert first.line() == "echo 1\n"
        done = roomcast("speak", "-", *FAST, "--url", server.http, stdin=PCM)
        assert done.returncode == 1
        assert "engines.echo.max_streams" in done.stderr
        pipe.close()
        assert first.wait() == 0


def test_ctrl_c_ends_it_while_it_waits_for_a_pipe(server: Server) -> None:
    with (
        piping() as (reading, pipe),
        running("speak", "-", *FAST, "--url", server.http, stdin=reading) as command,
    ):
        pipe.write(PCM[:32000])
        assert command.line() == "echo 1\n"
        assert command.interrupt() == 130
        assert command.note() == "\n"
        assert command.note() == ""


def test_a_reader_that_leaves_ends_it_without_a_word(server: Server) -> None:
    with (
        piping() as (reading, pipe),
        running("speak", "-", *FAST, "--url", server.http, stdin=reading) as command,
    ):
        pipe.write(PCM[:32000])
        assert command.line() == "echo 1\n"
        assert command.process.stdout is not None
        command.process.stdout.close()
        pipe.write(PCM[:32000])
        assert command.wait() == 1
        assert command.note() == ""


def test_a_server_that_dies_is_told_at_once(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", engines__enabled="echo") as server,
        piping() as (reading, pipe),
        running("speak", "-", *FAST, "--url", server.http, stdin=reading) as command,
    ):
        pipe.write(PCM[:32000])
        assert command.line() == "echo 1\n"
        server.kill()
        assert command.wait() == 1
        assert command.note() == (
            "Error: the connection to the server broke; 1.0 s of audio were sent\n"
        )


def test_the_sentence_of_the_server_is_told_without_control_characters() -> None:
    closing = {"type": "closing", "code": 1013, "reason": "overload", "retry": True}
    with pretending([closing | {"message": "too\x1b[31m busy"}, 1013]) as (url, asked):
        done = roomcast("speak", "-", *FAST, "--name", "A & B", "--url", url, stdin=PCM)

    assert done.returncode == 1
    assert "Error: the server ended it: too?[31m busy; " in done.stderr
    assert asked == ["/v1/rooms/r/speak?rate=16000&channels=1&name=A+%26+B"]


def test_audio_that_was_not_recognized_is_told() -> None:
    said: dict[str, object] = {
        "type": "gap",
        "room": "r",
        "session": "s",
        "reason": "upstream_full",
    }
    gaps = [said | {"from": first, "to": first + 7999} for first in (0, 16000)]
    ended = {"type": "speech", "state": "ended", "session": "s"}
    with pretending([*gaps, ended, 1000]) as (url, _):
        done = roomcast("speak", "-", *FAST, "--url", url, stdin=PCM)

    assert done.returncode == 0
    assert "0.5 s of it were not recognized: the engine was too slow" in done.stderr


def test_a_speaker_that_is_slowed_goes_on(tmp_path: Path) -> None:
    quotas = {"audio_seconds_per_minute": 30, "audio_seconds_burst": 1}
    tenants = msgspec.json.encode(tenant(quotas=quotas)).decode()
    with serving(tmp_path / "log", tenants=tenants, engines__enabled="echo") as server:
        at = ("--url", server.http, "--room", "r")
        said = roomcast("speak", "-", *at, stdin=PCM + bytes(32000), ROOMCAST_TOKEN=mint())

    assert (said.returncode, said.stdout) == (0, FINALS + "echo 4\n")
    assert "slowed: the tenant's quota audio_seconds_per_minute is 30" in said.stderr


def test_who_is_cut_unread_is_told_what_that_may_mean() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        cutting = Thread(target=lambda: listening.accept()[0].close())
        cutting.start()
        done = roomcast("speak", "-", *FAST, "--url", url, stdin=PCM)
        cutting.join()

    assert done.returncode == 1
    assert "hung up without an answer" in done.stderr
    assert "limits.arrivals" in done.stderr


def test_something_that_sends_no_events_is_no_server() -> None:
    with pretending(["hello"]) as (url, _):
        done = roomcast("speak", "-", *FAST, "--url", url, stdin=PCM)

    assert (done.returncode, done.stdout) == (1, "")
    assert "not a Roomcast server" in done.stderr


def test_progress_is_for_terminals_alone(server: Server, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "audio.wav", bytes(38400))
    piped = roomcast("speak", wav, "--room", "r", "--url", server.http)
    assert piped.stdout == "echo 1\necho 2\n"
    assert piped.stderr.startswith("1.2 s of audio, 2 finals, ")
    with (
        terminal() as (ours, theirs),
        running("speak", wav, "--room", "r", "--url", server.http, stderr=theirs) as command,
    ):
        *progress, end = read_line(ours).split("\r\x1b[K")
        assert command.wait() == 0

    assert " of 1.2 s sent, " in progress[1]
    assert end.startswith("1.2 s of audio, 2 finals, ")
