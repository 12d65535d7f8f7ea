"""roomcast listen: what it prints, how it comes back, and when it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.commands import (
    pretending,
    publish,
    read_line,
    roomcast,
    running,
    terminal,
)
from tests.servers import Server, serving

Event = dict[str, object]
AGAIN = 4001
NEVER = 4503
SPEECH = bytes(64000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose only engine is echo."""
    with serving(tmp_path_factory.mktemp("server") / "log", engines__enabled="echo") as running:
        yield running


def joined(offset: int, epoch: str = "e", **more: object) -> Event:
    return {"type": "joined", "room": "r", "epoch": epoch, "offset": offset, **more}


def message(offset: int, data: object, epoch: str = "e") -> Event:
    place = {"room": "r", "offset": offset, "epoch": epoch}
    return {"type": "message", "data": data, "sender": "", "at": 1.0, **place}


def transcript(text: str, name: str = "", offset: int | None = None) -> Event:
    place = {} if offset is None else {"offset": offset, "epoch": "e"}
    return {
        "type": "transcript",
        "room": "r",
        "segment": "s.0",
        "revision": 0,
        "final": offset is not None,
        "text": text,
        "start": 0.0,
        "end": 1.0,
        "speaker": {"id": "i", "name": name},
        "language": "en",
        "at": 1.0,
        **place,
    }


def gap(first: int, last: int, reason: str, **more: object) -> Event:
    return {"type": "gap", "room": "r", "from": first, "to": last, "reason": reason, **more}


def closing(message: str) -> Event:
    end = {"code": AGAIN, "reason": "slow_consumer", "retry": True}
    return {"type": "closing", "message": message, "reconnect_ms": 1, **end}


def test_finals_are_lines_and_a_pipe_gets_no_control_characters(server: Server) -> None:
    with running("listen", "plain", "--url", server.http) as command:
        while server.metric("roomcast_subscriptions") == 0:
            continue

        speech = ["-", "--room", "plain", "--rate", "max", "--name", "Ann"]
        assert roomcast("speak", *speech, "--url", server.http, stdin=SPEECH).returncode == 0
        publish(server, "plain", {"n": 1})
        assert [command.line() for _ in range(3)] == ["Ann: echo 1\n", "Ann: echo 2\n", '{"n":1}\n']
        assert command.interrupt() == 130
        assert (command.line(), command.note(), command.note()) == ("", "\n", "")


def test_json_is_every_event_one_a_line(server: Server) -> None:
    with running("listen", "json", "--json", "--url", server.http) as command:
        command.until('"joined"')
        publish(server, "json", "\x1b[31m\x9b é")
        line = command.until('"message"')
        assert line.rstrip("\n").isprintable()
        assert json.loads(line)["data"] == "\x1b[31m\x9b é"
        assert "é" in line


def test_a_reader_that_leaves_ends_it_without_a_word(server: Server) -> None:
    with running("listen", "head", "--json", "--url", server.http) as command:
        command.until('"joined"')
        assert command.process.stdout is not None
        command.process.stdout.close()
        publish(server, "head", 1)
        assert command.wait() == 1
        assert command.note() == ""


def test_history_and_since_begin_earlier(server: Server) -> None:
    for n in range(3):
        publish(server, "earlier", n)

    with running("listen", "earlier", "--history", "2", "--json", "--url", server.http) as command:
        epoch = json.loads(command.until('"joined"'))["epoch"]
        assert [json.loads(command.line())["data"] for _ in range(2)] == [1, 2]

    with running("listen", "earlier", "--since", f"{epoch}:1", "--url", server.http) as command:
        assert [command.line() for _ in range(2)] == ["1\n", "2\n"]
        assert command.note() == "[back, nothing is lost]\n"


def test_text_of_any_language_passes_a_narrow_encoding(server: Server) -> None:
    publish(server, "narrow", "a日")
    flags = ["--history", "1", "--url", server.http]
    encodings = {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONIOENCODING": ""}
    for encoding, line in zip(encodings, ('"a\\u65e5"\n', '"a日"\n'), strict=True):
        with running("listen", "narrow", *flags, environ=dict(encoding)) as command:
            assert command.line() == line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["a b"], "a room's name is 1 to 128 of the characters"),
        (["r", "--since", "yesterday"], "since must look like EPOCH:OFFSET"),
        (["r", "--history", "1000000"], "history is at most"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(
    server: Server, flags: list[str], said: str
) -> None:
    done = roomcast("listen", *flags, "--url", server.http)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_it_survives_a_crash_and_a_restart_of_the_server(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", engines__enabled="echo") as server,
        running("listen", "r", "--json", "--url", server.http) as command,
    ):
        command.until('"joined"')
        publish(server, "r", "before")
        command.until("before")
        server.kill()
        assert command.note() == "[the connection to the server broke; coming back]\n"
        server.start()
        command.until('"epoch_changed"')
        publish(server, "r", "between")
        command.until("between")
        server.terminate()
        assert command.note() == "[the server ended it: this node is restarting; coming back]\n"
        assert server.wait() == 0
        server.start()
        command.until('"epoch_changed"')
        publish(server, "r", "after")
        command.until("after")


def test_it_comes_back_with_since_and_says_what_is_lost() -> None:
    scripts: list[list[object]] = [
        [joined(5), transcript("one", "Ann", 6), message(7, 2), closing("too slow"), AGAIN],
        [joined(7, recovered=True), AGAIN],
        [joined(9, recovered=False), gap(8, 9, "expired", epoch="e"), AGAIN],
        [joined(3, "f", recovered=False), gap(1, 0, "epoch_changed", epoch="f"), NEVER],
    ]
    with pretending(*scripts) as (url, asked):
        done = roomcast("listen", "r", "--url", url)

    base = "/v1/rooms/r/listen?"
    assert asked == [
        f"{base}partials=false",
        f"{base}since=e%3A7&partials=false",
        f"{base}since=e%3A7&partials=false",
        f"{base}since=e%3A9&partials=false",
    ]
    assert done.stdout == "Ann: one\n2\n"
    assert done.stderr.splitlines() == [
        "[the server ended it: too slow; coming back]",
        "[back, nothing is lost]",
        "[the server ended it: because; coming back]",
        "[back, 2 events are lost: they are too old for the server's history]",
        "[the server ended it: because; coming back]",
        "[back, anything said meanwhile is lost: the server has started anew, without its history]",
        "Error: the server ended it: because",
    ]
    assert done.returncode == 1


def test_audio_that_an_engine_was_too_slow_for_is_told() -> None:
    with pretending([joined(3), gap(0, 99, "upstream_full", session="s"), NEVER]) as (url, _):
        done = roomcast("listen", "r", "--url", url)

    assert done.stderr.startswith("[some of a speaker's audio is lost: the speech engine is too")


def test_a_replay_that_breaks_off_is_asked_for_again() -> None:
    scripts: list[list[object]] = [
        [joined(5), AGAIN],
        [joined(9, recovered=True), message(6, "six"), AGAIN],
        [joined(9, recovered=True), message(7, "seven"), NEVER],
    ]
    with pretending(*scripts) as (url, asked):
        done = roomcast("listen", "r", "--url", url)

    assert [path.partition("since=")[2].partition("&")[0] for path in asked] == [
        "",
        "e%3A5",
        "e%3A6",
    ]
    assert done.stdout == '"six"\n"seven"\n'


@pytest.mark.parametrize("code", [4500, 4999, 1000, 1008])
def test_a_close_that_is_for_good_ends_it(code: int) -> None:
    with pretending([joined(1), code]) as (url, asked):
        done = roomcast("listen", "r", "--url", url)

    assert len(asked) == 1
    assert (done.returncode, done.stderr) == (1, "Error: the server ended it: because\n")


def test_once_is_once() -> None:
    with pretending([joined(1), AGAIN]) as (url, asked):
        assert roomcast("listen", "r", "--once", "--url", url).returncode == 1

    assert len(asked) == 1


def test_events_of_a_kind_that_is_not_known_are_left_out() -> None:
    with pretending([{"type": "weather"}, joined(1) | {"sky": "blue"}, NEVER]) as (url, _):
        done = roomcast("listen", "r", "--json", "--url", url)

    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["joined"]


def test_texts_of_others_cannot_steer_the_terminal() -> None:
    evil = "a\x1b[2J\x9b1m\u202eb"
    script = [joined(1), transcript(evil, evil, 2), message(3, {evil: evil}), closing(evil), NEVER]
    with pretending(script) as (url, _):
        done = roomcast("listen", "r", "--url", url)

    assert done.stdout.splitlines()[0] == "a?[2J?1m?b: a?[2J?1m?b"
    for text in (done.stdout, done.stderr):
        assert not set(text) & set("\x1b\x9b\u202e\r")


def test_partials_stay_in_place_on_a_terminal() -> None:
    script = [joined(1), transcript("wor"), transcript("words"), transcript("words.", "", 2), NEVER]
    with (
        pretending(script) as (url, asked),
        terminal() as (ours, theirs),
        running("listen", "r", "--url", url, stdout=theirs) as command,
    ):
        line = read_line(ours)
        assert command.wait() == 1

    assert asked == ["/v1/rooms/r/listen"]
    dim = "\r\x1b[K\x1b[2m{}\x1b[0m"
    assert line == dim.format("wor") + dim.format("words") + "\r\x1b[Kwords.\r\n"
