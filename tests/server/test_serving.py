"""What keeps a server from starting, and the address that it takes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import tomli_w
import uvicorn

from server.address import check_exposure, listen, url_of
from server.app import create_app
from server.loopback import is_loopback
from server.serving import DrainingServer, JsonFormatter
from server.settings import BadSettings, Server, Settings
from tests.processes import answers, ends_within, free_port
from tests.server.api import settings_of
from tests.server.commands import running
from tests.tokens import tenant


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)
    check_exposure(Settings(dev=True, server=Server(host=host)))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "127.evil.example",
        "127.0.0.1.evil.example",
        "::1.evil.example",
        "localhost.evil.example",
        "localhosts",
        "128.0.0.1",
        "::2",
        "[::]",
    ],
)
def test_every_other_address_is_exposed_and_needs_to_be_asked_for(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(BadSettings, match="--expose"):
        check_exposure(Settings(dev=True, server=Server(host=host)))

    check_exposure(Settings(dev=True, server=Server(host=host, expose_dev=True)))


def test_a_server_without_a_tenant_does_not_start() -> None:
    with pytest.raises(BadSettings, match="tenants_directory, or let --dev"):
        check_exposure(Settings())


def test_a_server_of_tenants_starts_anywhere() -> None:
    for more in ({"tenants": tenant()}, {"tenants_directory": "/etc/roomcast/tenants"}):
        check_exposure(msgspec.convert({"server": {"host": "0.0.0.0"}, **more}, Settings))
        with pytest.raises(BadSettings, match="--expose"):
            check_exposure(msgspec.convert({"dev": True, "server": {"host": ""}, **more}, Settings))


def test_a_free_port_is_taken_and_named() -> None:
    (sock,) = listen(Settings(server=Server(port=0)))
    with sock:
        port = sock.getsockname()[1]
        assert url_of(sock) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), 5):
            pass


def test_a_name_gives_all_of_its_addresses_one_port() -> None:
    sockets = listen(Settings(server=Server(host="localhost", port=0)))
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "::1"}
    finally:
        for sock in sockets:
            sock.close()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "127.0.0.1"),
        pytest.param("[::1]", "[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
    ],
)
def test_the_address_is_named_as_a_browser_takes_it(host: str, shown: str) -> None:
    port = free_port()
    (sock,) = listen(Settings(server=Server(host=host, port=port)))
    with sock:
        assert url_of(sock) == f"http://{shown}:{port}"


def test_a_taken_port_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match="in use") as error,
    ):
        listen(Settings(server=Server(port=other.getsockname()[1])))

    assert error.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", ["no such host", "a" * 80 + ".example", "198.51.100.1"])
def test_a_host_that_is_not_here_is_an_error(host: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        listen(Settings(server=Server(host=host, port=0)))


def test_a_hangup_ends_no_server_be_it_starting_or_without_a_directory(tmp_path: Path) -> None:
    config = tmp_path / "roomcast.toml"
    os.mkfifo(config)
    with running("serve", "--config", config, "--port", "0") as server:
        with os.fdopen(opened_by(server.process, config), "w") as writing:
            server.process.send_signal(signal.SIGHUP)  # it waits for its settings
            writing.write(tomli_w.dumps({"engines": {"enabled": ["echo"]}, "tenants": tenant()}))

        url = json.loads(server.note())["message"].removeprefix("listening on ")
        server.process.send_signal(signal.SIGHUP)
        while not answers(f"{url}/readyz"):
            assert not ends_within(server.process, 0.05)

        server.process.send_signal(signal.SIGHUP)
        assert "no tenants_directory, and need a restart" in server.note()
        server.process.terminate()
        assert server.wait() == 0


def opened_by(process: subprocess.Popen[bytes], fifo: Path) -> int:
    """Wait until a process reads from a FIFO, and return the end to write to."""
    while not ends_within(process, 0.02):
        with suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)

    raise AssertionError(f"it ended with {process.returncode}")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_took_a_hangup_before_a_server_does_so_afterwards() -> None:
    app = create_app(settings_of())
    before = signal.getsignal(signal.SIGHUP)
    with DrainingServer(uvicorn.Config(app, log_config=None), app.state.node).capture_signals():
        assert signal.getsignal(signal.SIGHUP) != before

    assert signal.getsignal(signal.SIGHUP) == before


def test_a_log_line_is_one_json_object_whatever_is_in_it() -> None:
    try:
        raise ValueError("\x1b[31m\nforged")
    except ValueError:
        record = logging.LogRecord(
            "roomcast.x", logging.ERROR, "", 0, "said %s", ("a\nb",), sys.exc_info()
        )

    (line,) = JsonFormatter().format(record).splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "error",
        "roomcast.x",
        "said a\nb",
    )
    assert "forged" in entry["traceback"]
    assert "\x1b" not in line
