"""The command line as a stranger meets it: exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from server import __version__
from server.cli import COMMANDS
from server.cli.terminal import printable, tail, to_json
from tests.processes import answers, free_port
from tests.server.commands import roomcast, running
from tests.servers import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Return a server that never started: its port answers nobody."""
    return Server(tmp_path_factory.mktemp("server") / "log")


@pytest.mark.parametrize("command", [("listen",), ("speak",), ("bench", "fanout")])
def test_the_help_of_a_client_says_how_to_bring_a_token(command: tuple[str, ...]) -> None:
    assert "ROOMCAST_TOKEN" in roomcast(*command, "--help").stdout


def test_the_help_names_every_command() -> None:
    done = roomcast("--help")
    assert done.returncode == 0
    commands = done.stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in commands] == [*COMMANDS]
    assert not any(line.endswith("...") for line in commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = roomcast(name, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: roomcast {name} ")


@pytest.mark.parametrize(
    "call", [["sing"], ["speak", "x.wav"], ["listen"], ["serve", "--port", "70000"], ["--loud"]]
)
def test_a_wrong_call_is_status_2(call: list[str]) -> None:
    done = roomcast(*call)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_the_version_is_a_line_or_json() -> None:
    assert roomcast("version").stdout == f"roomcast {__version__}\n"
    versions = json.loads(roomcast("version", "--json").stdout)
    assert versions["roomcast"] == __version__
    assert {"python", "anyio", "uvicorn"} <= versions.keys()


def test_a_full_disk_is_a_sentence() -> None:
    with running("version", stdout=os.open("/dev/full", os.O_WRONLY)) as command:
        assert "No space left" in command.note()
        assert command.wait() == 1


def test_settings_are_checked_and_named(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text("[server]\nport = 'x'\n")
    assert roomcast("config", "check").returncode == 0
    for call in (["config", "check"], ["config", "show"], ["serve", "--dev"], ["doctor"]):
        done = roomcast(*call, "--config", file)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"Error: {file}: server.port must be `int`, not `str`\n"


def test_a_wrong_variable_is_named() -> None:
    done = roomcast("serve", "--dev", ROOMCAST_LIMITS__EGRESS__MESSAGES="abc")
    assert done.returncode == 2
    assert "ROOMCAST_LIMITS__EGRESS__MESSAGES: limits.egress.messages" in done.stderr


def test_serving_nobody_or_everybody_is_refused_with_the_way_out() -> None:
    for flags, way in (([], "--dev"), (["--dev", "--host", "127.evil.example"], "--expose")):
        done = roomcast("serve", *flags)
        assert done.returncode == 2
        assert way in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_server_says_where_it_is_stops_at_ctrl_c_and_is_done() -> None:
    with running("serve", "--dev", "--port", "0") as command:
        line = json.loads(command.note())
        url = line["message"].removeprefix("listening on ")
        while not answers(f"{url}/readyz"):
            continue

        assert command.interrupt() == 0


def test_a_port_is_taken_and_everybody_says_so(tmp_path: Path) -> None:
    with serving(tmp_path / "log", engines__enabled="echo") as server:
        taken = f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
        done = roomcast("serve", "--dev", "--host", "127.0.0.1", "--port", str(server.port))
        assert done.returncode == 1
        assert done.stderr == f"Error: {taken}; choose another with --port\n"

        done = roomcast("demo", "--port", str(server.port))
        assert done.returncode == 1
        assert taken in done.stderr

        done = roomcast(
            "doctor", "--json", ROOMCAST_SERVER__PORT=server.port, ROOMCAST_ENGINES__ENABLED="echo"
        )
        checks = {check["name"]: check for check in map(json.loads, done.stdout.splitlines())}
        assert done.returncode == 1
        assert checks["port"]["verdict"] == "fail"
        assert taken in checks["port"]["found"]
        assert "as it is configured: port\n" in done.stderr


def test_a_fit_machine_gets_status_0() -> None:
    port = free_port()
    done = roomcast("doctor", "--json", ROOMCAST_SERVER__PORT=port)
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    names = ["python", "loop", "port", "files", "echo", "engine"]
    assert [check["name"] for check in checks] == names
    assert {check["verdict"] for check in checks} <= {"ok", "warn"}
    assert "streams" in checks[-1]["found"]
    plain = roomcast(
        "doctor", ROOMCAST_SERVER__PORT=port, ROOMCAST_ENGINES__ENABLED="echo,deepgram,revai_sdk"
    ).stdout.splitlines()
    assert [line.split()[1] for line in plain] == [*names[:-1], "deepgram", "revai_sdk"]
    assert "engines.deepgram.key" in plain[-2]
    assert "engines.revai_sdk.token" in plain[-1]


@pytest.mark.parametrize("call", [["listen", "r"], ["speak", "audio", "--room", "r"]])
@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("nonsense", 2, "is not the address of a server, like http"),
        ("http://127.0.0.1:99999", 2, "is not the address of a server"),
        ("http://:80", 2, "is not the address of a server"),
        ("http://me:secret@127.0.0.1:PORT", 1, "no server answers at 127.0.0.1:PORT; `roomcast"),
    ],
)
def test_no_server_is_a_sentence_without_secrets(
    tmp_path: Path, server: Server, call: list[str], url: str, status: int, said: str
) -> None:
    (tmp_path / "audio").write_bytes(bytes(640))
    url, said = (text.replace("PORT", str(server.port)) for text in (url, said))
    arguments = [str(tmp_path / each) if each == "audio" else each for each in call]
    done = roomcast(*arguments, ROOMCAST_URL=url)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert status == 2 or "secret" not in done.stderr


def test_sigterm_to_the_demo_leaves_no_server_behind(tmp_path: Path) -> None:
    port = free_port()
    with running("demo", "--port", str(port)) as command:
        assert command.line() == f"the page is at http://127.0.0.1:{port}/?room=demo\n"
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 128 + signal.SIGTERM

    assert not answers(f"http://127.0.0.1:{port}/livez")


def test_texts_of_others_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[31m\x9b\u202eb\nc\u2028d\x7f") == "a?[31m??b c d?"
    assert printable("naïve \u200c日本 👩\u200d🚀") == "naïve \u200c日本 👩\u200d🚀"
    value = {"a": "\x1b\x9b\u202e\x7f é"}
    assert "é" in to_json(value)
    assert printable(to_json(value)) == to_json(value)
    assert json.loads(to_json(value)) == value


def test_the_end_of_a_text_fits_the_columns() -> None:
    assert [tail("abc", columns) for columns in (0, 2, 3, 9)] == ["", "bc", "abc", "abc"]
    assert [tail("a日本", columns) for columns in (1, 2, 3, 4, 5)] == [
        "",
        "本",
        "本",
        "日本",
        "a日本",
    ]
